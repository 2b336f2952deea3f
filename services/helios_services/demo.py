"""`make demo`: the whole service on this machine, one video through gRPC, everything down again."""

import tempfile
from pathlib import Path

from helios_services.cli.errors import user_errors
from helios_services.cli.remote import generate_remotely
from helios_services.config import ServiceConfig, load_config

OUTPUT = Path("demo.mp4")
PROMPT = "a slow camera over the lake at night"
FIELDS = {"num_frames": 66, "height": 128, "width": 192, "seed": 42, "pyramid_steps": (1, 1, 1)}


def main() -> None:
    """Runs the demo on the configured checkpoint, or on a tiny random one (whose video is coloured noise)."""
    with user_errors(), tempfile.TemporaryDirectory(prefix="helios-demo-") as folder:
        config = _config(Path(folder))
        from helios_services.stack import running_stack

        print("starting Redis, Ray, the model and the gateway (about half a minute) …", flush=True)
        with running_stack(config) as addresses:
            size = f"{FIELDS['width']}x{FIELDS['height']}"
            print(f"up at {addresses.grpc}; generating {FIELDS['num_frames']} frames of {size}", flush=True)
            generate_remotely(PROMPT, FIELDS, OUTPUT, addresses.grpc)
        print("everything is shut down")


def _config(folder: Path) -> ServiceConfig:
    config = load_config().model_copy(update={"state_dir": folder / "state", "log_level": "warning"})
    gateway = config.gateway.model_copy(update={"port": 0, "http_port": 0, "metrics_port": 0})
    dispatcher = config.dispatcher.model_copy(update={"metrics_port": 0})
    model = config.model
    if not model.checkpoint:
        from helios_engine.loading.tiny import write_tiny

        write_tiny(folder / "checkpoint")
        model = model.model_copy(update={"checkpoint": str(folder / "checkpoint"), "dtype": "float32"})
        print("no checkpoint is configured: using a tiny random one; its video is coloured noise")
    return config.model_copy(update={"gateway": gateway, "dispatcher": dispatcher, "model": model})


if __name__ == "__main__":
    main()
