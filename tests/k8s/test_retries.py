"""With the head's environment Serve goes on until replicas start; with its own, which one machine has, it gives up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from k8s.build import variant
from k8s.manifests import Manifests

NAME = "RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT"
PROGRAM = """
import sys
from pathlib import Path

import ray
from ray import serve

from helios_services.config import DenoiserConfig
from helios_services.deployments.app import deployment_options

tries = Path(sys.argv[1])
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")

@serve.deployment(**deployment_options(DenoiserConfig()))
class Replica:
    def __init__(self):
        with tries.open("a") as file:
            file.write("x")
        if tries.stat().st_size < 6:
            raise OSError("the volume is away")

serve.start(proxy_location="Disabled")
try:
    serve.run(Replica.bind(), name="app", route_prefix=None)
except RuntimeError:
    print("gave up")
else:
    print("runs")
"""


@pytest.mark.parametrize("place", ["a cluster", "one machine"])
def test_a_volume_that_is_away_for_a_while(place: str, scratch: Path, tmp_path: Path) -> None:
    manifests = Manifests(variant("base", scratch))
    retries = manifests.environment(manifests.pod("ray-head").main)[NAME]
    environ = {name: value for name, value in os.environ.items() if name not in (NAME, "RAY_ADDRESS")}
    tries = tmp_path / "tries"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tries)],
        env=environ | ({NAME: retries} if place == "a cluster" else {}),
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1:] == ["runs" if place == "a cluster" else "gave up"], done.stderr[-2000:]
    assert len(tries.read_text()) == (6 if place == "a cluster" else 3)
