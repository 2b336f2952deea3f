"""`helios up`, `helios gateway` and `helios worker`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from helios_engine.extras import needs
from helios_services.cli.stop import Stop
from helios_services.processes.own_session import in_own_session

if TYPE_CHECKING:
    from helios_services.config import ServiceConfig

ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file (or HELIOS_CONFIG).")]
CheckpointFolder = Annotated[
    str, typer.Option("--checkpoint", help="Checkpoint folder or Hub id (or HELIOS_MODEL__CHECKPOINT).")
]


def up(
    config: ConfigFile = None,
    checkpoint: CheckpointFolder = "",
    port: Annotated[int | None, typer.Option(help="Port of gRPC.", min=0, max=65535)] = None,
) -> None:
    """Run everything on this machine: Redis (unless configured), Ray, the model, the gateway."""
    in_own_session()
    with needs("serve", "helios up"):
        from helios_services.cli.plan import show
        from helios_services.config import load_config
        from helios_services.stack import running_stack

    settings = with_values(
        with_values(load_config(config), "model", checkpoint=checkpoint or None), "gateway", port=port
    )
    _warn_of_open_door(settings)
    stop = Stop()
    with running_stack(settings, stop.lost, tell=show) as addresses:
        stop.listen()
        print(f"helios is up: {addresses.grpc}   (Ctrl-C stops it)", flush=True)
        if addresses.http:
            print(f"in a browser, and for HTTP clients: {addresses.http}", flush=True)
        stop.wait()
    stop.leave()


def gateway(
    config: ConfigFile = None,
    port: Annotated[int | None, typer.Option(help="Port of gRPC.", min=0, max=65535)] = None,
) -> None:
    """Run a gateway: the gRPC and HTTP API over the job store."""
    with needs("gateway", "helios gateway"):
        from helios_services.config import load_config
        from helios_services.gateway.main import run_gateway
        from helios_services.jobs.embedded import with_redis

    settings = with_values(load_config(config), "gateway", port=port)
    _warn_of_own_redis(settings)
    _warn_of_open_door(settings)
    with with_redis(settings) as settings:
        run_gateway(settings)


def worker(
    config: ConfigFile = None,
    checkpoint: CheckpointFolder = "",
    address: Annotated[str | None, typer.Option(envvar="RAY_ADDRESS", help="Ray cluster. Unset: start one.")] = None,
) -> None:
    """Run the model: deploys the Serve application and keeps it until a signal."""
    in_own_session()
    with needs("serve", "helios worker"):
        from helios_services.cli.plan import show
        from helios_services.config import load_config
        from helios_services.deployments.serving import serving, settled
        from helios_services.jobs.embedded import with_redis
        from helios_services.telemetry.logs import configure_logging

    settings = with_values(load_config(config), "model", checkpoint=checkpoint or None)
    configure_logging(settings.log_level)
    settings, stop = settled(settings, on_cluster=address is not None, tell=show), Stop()
    _warn_of_own_redis(settings)
    with with_redis(settings, stop.lost) as settings, serving(settings, address=address, on_lost=stop.lost):
        stop.listen()
        print("worker: ready", flush=True)
        stop.wait()
    stop.leave()


def with_values(config: "ServiceConfig", section: str, **values: Any) -> "ServiceConfig":
    """The configuration with the given (not None) values of one section replaced."""
    given = {name: value for name, value in values.items() if value is not None}
    return config.model_copy(update={section: getattr(config, section).model_copy(update=given)})


def _warn_of_own_redis(config: "ServiceConfig") -> None:
    if not config.redis.url:
        _warn(
            f"redis.url: is empty: a Redis of this machine keeps the jobs, under {config.state_dir}; processes "
            "elsewhere do not see them (HELIOS_REDIS_URL names a Redis for all)"
        )


def _warn_of_open_door(config: "ServiceConfig") -> None:
    gateway = config.gateway
    if gateway.host in ("localhost", "::1") or gateway.host.startswith("127."):
        return
    if not gateway.api_keys_file:
        _warn(f"gateway.host: {gateway.host}: who reaches it may call, without a key (gateway.api_keys_file)")
    if not gateway.tls_certificate_file:
        _warn(f"gateway.host: {gateway.host}: calls are not encrypted (gateway.tls_certificate_file)")


def _warn(text: str) -> None:
    print(f"helios: warning: {text}", file=sys.stderr, flush=True)
