"""Shared by all tests: one thread per process (two cores run several processes), helpers importable by folder.

Hypothesis has no time limits: a slow machine is no finding.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "300")  # a machine under load is no finding
sys.path.insert(0, str(Path(__file__).parent))

import pytest
from hypothesis import HealthCheck, settings

SLOW = (
    "benchmarks",
    "browser",
    "docs/test_site.py",
    "engine/parallel",
    "engine/test_acceleration.py",
    "engine/test_graphs.py",
    "engine/test_lora.py",
    "engine/test_offload.py",
    "engine/test_vae_slices.py",
    "faults",
    "fuzz",
    "k8s/test_drain.py",
    "k8s/test_mutations.py",
    "k8s/test_retries.py",
    "k8s/test_weights.py",
    "k8s/test_wheel.py",
    "kernels/test_compile.py",
    "kernels/test_interpreted.py",
    "kernels/test_mutations.py",
    "monitoring",
    "packaging",
    "parity",
    "services/cli",
    "services/deployments/test_app.py",
    "services/deployments/test_autoscaling.py",
    "services/deployments/test_decoder.py",
    "services/deployments/test_gpu_room.py",
    "services/deployments/test_rank_group.py",
    "services/deployments/test_ray_token.py",
    "services/deployments/test_rollout.py",
    "services/deployments/test_torch_replica.py",
    "services/jobs/test_model.py",
    "services/media",
    "services/test_backup.py",
    "services/test_demo.py",
    "services/whole",
    "training",
)
"""What `make check` leaves out: what starts Ray or many processes, compiles, trains, or compares with diffusers."""

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny distilled checkpoint."""
    from helios_engine.loading.tiny import write_tiny

    path = tmp_path_factory.mktemp("checkpoint")
    write_tiny(path)
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what is slow."""
    here = Path(__file__).parent
    for item in items:
        name = item.path.relative_to(here).as_posix() if item.path.is_relative_to(here) else ""
        if any(name == slow or name.startswith(f"{slow}/") for slow in SLOW):
            item.add_marker(pytest.mark.slow)
