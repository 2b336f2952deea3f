"""`helios up`, `helios gateway` and `helios worker`."""

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from helios_engine.extras import needs

if TYPE_CHECKING:
    from helios_services.config import ServiceConfig

ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file (or HELIOS_CONFIG).")]
CheckpointFolder = Annotated[
    str, typer.Option("--checkpoint", help="Checkpoint folder or Hub id (or HELIOS_MODEL__CHECKPOINT).")
]


def up(
    config: ConfigFile = None,
    checkpoint: CheckpointFolder = "",
    port: Annotated[int | None, typer.Option(help="Port of the gateway.", min=0, max=65535)] = None,
) -> None:
    """Run everything on this machine: Redis (unless configured), Ray, the model, the gateway."""
    with needs("serve", "helios up"):
        from helios_services.config import load_config
        from helios_services.stack import running_stack

    settings = _with(_with(load_config(config), "model", checkpoint=checkpoint or None), "gateway", port=port)
    with running_stack(settings) as address:
        stop = _stop_event()
        print(f"helios is up: {address}   (Ctrl-C stops it)", flush=True)
        stop.wait()


def gateway(
    config: ConfigFile = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", min=0, max=65535)] = None,
) -> None:
    """Run a gateway: the gRPC API over the job store."""
    with needs("gateway", "helios gateway"):
        from helios_services.config import load_config
        from helios_services.gateway.main import run_gateway
        from helios_services.jobs.embedded import with_redis

    with with_redis(_with(load_config(config), "gateway", port=port)) as settings:
        run_gateway(settings)


def worker(
    config: ConfigFile = None,
    checkpoint: CheckpointFolder = "",
    address: Annotated[str | None, typer.Option(envvar="RAY_ADDRESS", help="Ray cluster. Unset: start one.")] = None,
) -> None:
    """Run the model: deploys the Serve application and keeps it until a signal."""
    with needs("serve", "helios worker"):
        from helios_services.config import load_config
        from helios_services.deployments.serving import serving, settled
        from helios_services.jobs.embedded import with_redis
        from helios_services.telemetry.logs import configure_logging

    settings = _with(load_config(config), "model", checkpoint=checkpoint or None)
    configure_logging(settings.log_level)
    settings = settled(settings)
    with with_redis(settings) as settings, serving(settings, address=address):
        stop = _stop_event()
        print("worker: ready", flush=True)
        stop.wait()


def _with(config: "ServiceConfig", section: str, **values: Any) -> "ServiceConfig":
    """The configuration with the given (not None) values of one section replaced."""
    given = {name: value for name, value in values.items() if value is not None}
    return config.model_copy(update={section: getattr(config, section).model_copy(update=given)})


def _stop_event() -> threading.Event:
    """Set by SIGTERM and SIGINT. To be made after Ray has started, which installs handlers of its own."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
