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

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny distilled checkpoint."""
    from helios_engine.loading.tiny import write_tiny

    path = tmp_path_factory.mktemp("checkpoint")
    write_tiny(path)
    return path
