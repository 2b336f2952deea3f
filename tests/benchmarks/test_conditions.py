"""The conditions of a figure are known, or known not to be, on machines that have the engine's packages only."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
import torch

from benchmarks import conditions, gpu_state

ROOT = Path(__file__).parents[2]
GPU_MODULES = ("engine", "ablation", "bf16", "fp8", "vae_precision", "kernels", "gpu", "performance_page")
WITHOUT = ("ray", "redis", "av", "grpc", "pydantic", "helios_services", "helios", "pytest_asyncio")
SMI = "NVIDIA H100 80GB HBM3, 580.1, 345 MHz, 1980 MHz, 2619 MHz, 2619 MHz, 68.1 W, 700.00 W, [N/A]"


def missing(name: str) -> NoReturn:
    raise PackageNotFoundError(name)


def no_git(*_: object, **__: object) -> NoReturn:
    raise FileNotFoundError("git")


def test_nothing_has_to_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(conditions.COMMIT, raising=False)
    monkeypatch.setattr(conditions, "version", missing)
    monkeypatch.setattr(subprocess, "run", no_git)
    known = conditions.conditions()
    assert known["ray"] is known["torch"] is known["commit"] is None
    assert known["cpu"]


def test_the_environment_names_the_commit_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(conditions.COMMIT, "abc1234")
    assert conditions.conditions()["commit"] == "abc1234"


def test_the_gpu_and_its_state_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="NVIDIA H100 80GB HBM3", total_memory=85_000_000_000)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=SMI + "\n"))
    state = conditions.conditions()["gpu_state"]
    assert (state["name"], state["sm_clock"], state["sm_clock_max"]) == (properties.name, "345 MHz", "1980 MHz")
    assert (state["driver"], state["power_limit"]) == ("580.1", "700.00 W")
    assert "temperature_c" not in state  # the card does not tell
    monkeypatch.setattr(subprocess, "run", no_git)  # nor is there nvidia-smi
    assert gpu_state.gpu_state() == {
        "name": properties.name,
        "memory_bytes": 85_000_000_000,
        "cuda": torch.version.cuda,
    }


BLOCKER = f"""
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in {WITHOUT!r} else self.finder.find_spec(name, *rest)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
COLLECT = ["-p", "no:asyncio", "-p", "no:cacheprovider", "-qq", "--collect-only", "tests/kernels", "tests/engine"]
PROGRAMS = {
    "benchmarks": "import " + ", ".join(f"benchmarks.{name}" for name in GPU_MODULES),
    "tests": f"import pytest; sys.exit(pytest.main({COLLECT!r}))",  # ini options name a plugin that is not there either
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_a_gpu_machine_runs_needs_no_package_of_the_service(program: str) -> None:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    done = subprocess.run(
        [sys.executable, "-c", BLOCKER + PROGRAMS[program]],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "PYTEST_ADDOPTS": ""},
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
