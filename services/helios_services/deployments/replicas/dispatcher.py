"""The dispatcher as a Ray Serve deployment."""

from ray import serve
from ray.serve.handle import DeploymentHandle

from helios_services.config import ServiceConfig
from helios_services.deployments.autoscaling.meter import WorkMeter
from helios_services.deployments.dispatch.dispatcher import Dispatcher
from helios_services.deployments.dispatch.own_store import with_own_store
from helios_services.deployments.ray_loopback import keep_replica_on_loopback
from helios_services.deployments.replicas.ray_stages import RayStages
from helios_services.telemetry.logs import configure_logging
from helios_services.telemetry.metrics import serve_metrics
from helios_services.telemetry.tracing import configure_tracing


class DispatcherReplica:
    """Serves no requests: jobs come from the store."""

    def __init__(
        self, config: ServiceConfig, text: DeploymentHandle, denoiser: DeploymentHandle, decoder: DeploymentHandle
    ) -> None:
        config = with_own_store(config)
        configure_logging(config.log_level)
        keep_replica_on_loopback()
        configure_tracing(config.tracing, "helios-dispatcher")
        app = serve.get_replica_context().app_name
        self._dispatcher = Dispatcher(config, RayStages(app, text, denoiser, decoder))
        self._meter = WorkMeter(config, self._dispatcher.metrics, app)
        options = config.dispatcher
        self._metrics_port = serve_metrics(
            self._dispatcher.metrics.registry, options.metrics_host, options.metrics_port
        )

    async def metrics_port(self) -> int:
        """The port of this replica's metrics."""
        return self._metrics_port

    async def check_health(self) -> None:
        """Called by Serve; raising makes it replace the replica."""
        self._dispatcher.check()
        self._meter.check()

    async def __del__(self) -> None:
        """Called and awaited by Serve when the replica is shut down."""
        await self._dispatcher.drain()
        await self._meter.close()
