"""The gRPC server: service, health, reflection, limits, and an orderly end."""

import asyncio

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from helios.v1 import video_generation_pb2 as pb
from helios.v1.video_generation_pb2_grpc import add_VideoGenerationServicer_to_server
from helios_services.config import ConfigError, ServiceConfig
from helios_services.gateway.calls.video_stream import Drain, VideoStream
from helios_services.gateway.grpc.handlers import CallInterceptor
from helios_services.gateway.grpc.limits import server_options
from helios_services.gateway.grpc.servicer import VideoGeneration
from helios_services.gateway.grpc.tls import server_credentials
from helios_services.gateway.guard.keys import KeyRing
from helios_services.gateway.metrics import GatewayMetrics
from helios_services.jobs.connector import Connector
from helios_services.jobs.errors import StoreUnavailable
from helios_services.jobs.patched import warn_of_old_server
from helios_services.media.artifacts import ArtifactStore
from helios_services.tasks import cancelled
from helios_services.webhooks.sender import WebhookSender

log = structlog.get_logger(__name__)
SERVICE = pb.DESCRIPTOR.services_by_name["VideoGeneration"].full_name
LIVENESS = "liveness"
"""Health service name that stays SERVING without Redis: the process is alive, restarting it would help nobody."""
CHECK_PERIOD_S = 2.0
DRAIN_MARGIN_S = 5.0
"""How long of the drain streams may take to end once they are told: each looks into Redis once more."""
NEVER_S = 3600.0
"""Where the server's own limit lies beyond the drain: `stop` ends it, not that."""


class Gateway:
    """The gateway of one process. `config.redis.url` must be set."""

    def __init__(self, config: ServiceConfig) -> None:
        self._config = config
        self.metrics = GatewayMetrics(config.jobs.max_queued)
        self.port = self.health_port = 0
        self._drain = Drain()
        self._background: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Binds and serves. Raises ConfigError for an address, keys or certificates that cannot be had."""
        config, options = self._config, self._config.gateway
        keys, credentials = KeyRing(options.api_keys_file), server_credentials(options)
        connector = Connector(config.redis, config.jobs)
        self._store, self._notifier = connector.store(), connector.notifier()
        self._webhooks = WebhookSender(config.webhooks, self._store, self.metrics.registry)
        await self._notifier.start()
        video = VideoStream(self._store, self._notifier, ArtifactStore(config.artifacts), self.metrics, self._drain)
        self._server = grpc.aio.server(
            interceptors=[CallInterceptor(self.metrics, keys)],
            maximum_concurrent_rpcs=options.max_concurrent_rpcs,
            options=server_options(options),
        )
        add_VideoGenerationServicer_to_server(VideoGeneration(config, self._store, video), self._server)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if options.reflection:
            names = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
        # calls of its own limit: a gateway that is full is not dead
        self._probed = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._probed)
        try:
            self.port = self._bind(self._server, "port", credentials)
            if options.health_port is not None:
                self.health_port = self._bind(self._probed, "health_port", None)
        except ConfigError:
            await self._close()
            raise
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self._look_at_redis()
        await self._server.start()
        await self._webhooks.start()
        await self._probed.start()
        self._background = [
            asyncio.create_task(self._watch_redis(), name="redis-watch"),
            asyncio.create_task(warn_of_old_server(self._config.redis), name="redis-version"),
        ]
        log.info("gateway_serving", host=options.host, port=self.port)

    async def stop(self) -> None:
        """Health flips first; calls get `drain_s` to finish, streams a little less: they end with a resume point."""
        drain_s = self._config.gateway.drain_s
        margin_s = min(DRAIN_MARGIN_S, drain_s)
        await cancelled(*self._background)
        await self._health.enter_graceful_shutdown()
        ended = asyncio.create_task(self._server.stop(drain_s + NEVER_S))  # takes no call from now on
        await asyncio.wait([ended], timeout=drain_s - margin_s)
        self._drain.begin()
        self._notifier.wake_all()  # streams that wait look again
        await asyncio.wait([ended], timeout=margin_s)  # from now, however late this process got to it
        await self._server.stop(None)
        await ended
        await self._webhooks.close()
        await self._probed.stop(None)
        await self._close()
        log.info("gateway_stopped")

    def _bind(self, server: grpc.aio.Server, setting: str, credentials: grpc.ServerCredentials | None) -> int:
        port = getattr(self._config.gateway, setting)
        address = f"{self._config.gateway.host}:{port}"
        try:
            if credentials is None:
                return int(server.add_insecure_port(address))
            return int(server.add_secure_port(address, credentials))
        except RuntimeError:
            raise ConfigError(f"gateway.{setting}: {port}: {address} cannot be bound (in use?)") from None

    async def _close(self) -> None:
        await self._notifier.close()
        await self._store.close()

    async def _watch_redis(self) -> None:
        while True:
            await asyncio.sleep(CHECK_PERIOD_S)
            await self._look_at_redis()

    async def _look_at_redis(self) -> None:
        """Sets health by whether the store answers, and the metrics that the store holds."""
        status = health_pb2.HealthCheckResponse.NOT_SERVING
        try:
            await self._store.sweep()  # deadlines are kept while no worker runs
            depths, dead = await self._store.depths(self._config.model.name), await self._store.dead_letters()
            self.metrics.store(depths, await self._store.ended(), dead)
            status = health_pb2.HealthCheckResponse.SERVING
        except StoreUnavailable:
            self.metrics.store_lost()
        for name in ("", SERVICE):
            await self._health.set(name, status)
