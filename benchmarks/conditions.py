"""The conditions that a figure was measured under."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.gpu_state import gpu_state

PACKAGES = ("torch", "triton", "diffusers", "transformers", "ray", "grpcio", "redis", "av")
COMMIT = "HELIOS_COMMIT"
"""The environment variable that names the commit where there is no repository, such as on a copy of the files."""


def conditions() -> dict[str, Any]:
    """Machine, versions (None: not installed), commit and date; the GPU and its state where there is one.

    Raises nothing: what is not known is None.
    """
    gpu = gpu_state()
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version_of(name) for name in PACKAGES},
        "commit": os.environ.get(COMMIT) or _commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "gpu": gpu["name"] if gpu else None,
        "gpu_state": gpu,
    }


def head(module: str, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a report begins with: the command line of benchmarks.`module`, and its conditions with `more` of them."""
    command = " ".join([f"python -m benchmarks.{module}", *sys.argv[1:]])
    return {"command": command, "conditions": conditions() | dict(more or {})}


def version_of(package: str) -> str | None:
    """None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str | None:
    commit = _git("rev-parse", "--short", "HEAD")
    return commit + ("+changes" if _git("status", "--porcelain") else "") if commit else None


def _git(*command: str) -> str:
    try:
        return subprocess.run(["git", *command], capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # there is no git
        return ""
