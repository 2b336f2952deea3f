"""The service of a tiny checkpoint, on this machine."""

from pathlib import Path
from typing import Any

from helios_services.config import ServiceConfig


def tiny_service(checkpoint: Path, folder: Path, **sections: Any) -> ServiceConfig:
    """A tenth of a core for each replica, ports of the system's choice. sections: what a test sets besides."""
    replica = {"num_cpus": 0.1, "torch_threads": 1}
    given: dict[str, Any] = {
        "state_dir": folder,
        "log_level": "warning",
        "model": {"checkpoint": str(checkpoint), "dtype": "float32"},
        "jobs": {"lease_s": 120},
        "gateway": {"port": 0, "metrics_port": 0},
        "dispatcher": {"metrics_port": 0},
        "text_encoder": replica,
        "denoiser": replica,
        "decoder": replica,
    }
    return ServiceConfig.model_validate(
        given | {name: given.get(name, {}) | values for name, values in sections.items()}
    )
