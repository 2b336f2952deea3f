"""The GPU and how it runs: a figure of a GPU that is throttled or that others use is another figure."""

import subprocess
from typing import Any

import torch

FIELDS = {
    "name": "name",
    "driver": "driver_version",
    "sm_clock": "clocks.sm",
    "sm_clock_max": "clocks.max.sm",
    "memory_clock": "clocks.mem",
    "memory_clock_max": "clocks.max.mem",
    "power": "power.draw",
    "power_limit": "power.limit",
    "temperature_c": "temperature.gpu",
}
"""Our names, and nvidia-smi's."""
TIMEOUT_S = 20.0


def gpu_state() -> dict[str, Any] | None:
    """The current GPU's name and CUDA version, and what nvidia-smi says of it where it is installed; None: no GPU."""
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    known = {"name": properties.name, "memory_bytes": properties.total_memory, "cuda": torch.version.cuda}
    return _from_nvidia_smi() | known


def parse(line: str) -> dict[str, str]:
    """nvidia-smi's line of values, without those that the card does not tell."""
    values = (value.strip() for value in line.split(", "))
    return {name: value for name, value in zip(FIELDS, values, strict=False) if value and not value.startswith("[")}


def _from_nvidia_smi() -> dict[str, str]:
    query = f"--query-gpu={','.join(FIELDS.values())}"
    try:
        said = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader", f"--id={torch.cuda.current_device()}"],
            capture_output=True,
            text=True,
            check=True,
            timeout=TIMEOUT_S,
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return {}
    return parse(said[0]) if said else {}
