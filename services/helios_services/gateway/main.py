"""Runs a gateway in this process until a signal."""

import asyncio
import resource
import signal
import sys

from helios_services.config import ConfigError, GatewayConfig, ServiceConfig
from helios_services.gateway.server import Gateway
from helios_services.telemetry.logs import configure_logging
from helios_services.telemetry.metrics import serve_metrics
from helios_services.telemetry.tracing import configure_tracing


def run_gateway(config: ServiceConfig) -> None:
    """Serves until SIGTERM or SIGINT, then drains. `config.redis.url` must be set. Raises ConfigError."""
    configure_logging(config.log_level)
    configure_tracing(config.tracing, "helios-gateway")
    raise_descriptor_limit()
    asyncio.run(_serve(config))


def raise_descriptor_limit() -> None:
    """Each connection takes a descriptor, a stranger's too: as many as the system lets this process have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(config: ServiceConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    gateway = Gateway(config)
    await gateway.start()
    serve_metrics(gateway.metrics.registry, config.gateway.metrics_host, config.gateway.metrics_port)
    if gateway.http_port:
        print(f"http: {http_address(config.gateway, gateway.http_port)}", flush=True)
    print(f"gateway: {config.gateway.host}:{gateway.port}", flush=True)
    await stop.wait()
    await gateway.stop()


def http_address(config: GatewayConfig, port: int) -> str:
    """Where the HTTP door is reached."""
    scheme = "https" if config.tls_certificate_file else "http"
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"{scheme}://{host}:{port}"


if __name__ == "__main__":
    try:
        run_gateway(ServiceConfig.model_validate_json(sys.stdin.read()))
    except ConfigError as error:
        sys.exit(f"helios: {error}")
