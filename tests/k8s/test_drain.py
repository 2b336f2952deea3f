"""The preStop hook on a real Ray cluster of two nodes: Serve ends the node's replica in order before the node goes."""

import os
import subprocess
import sys
from pathlib import Path

from k8s.build import K8S

PROGRAM = """
import os, subprocess, sys
import ray
from ray import serve
from ray.cluster_utils import Cluster

script, marker = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
worker = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False)

@serve.deployment(graceful_shutdown_timeout_s=100, graceful_shutdown_wait_loop_s=0.1)
class Replica:
    async def __del__(self):  # as the dispatcher does
        open(marker, "w").close()

serve.start(http_options={"location": "NoServer"})
serve.run(Replica.bind(), name="app", route_prefix=None)
environ = {**os.environ, "NODE_ID": worker.node_id, "RAY_ADDRESS": cluster.address}
assert not os.path.exists(marker)
subprocess.run(["sh", script, "112"], env=environ, check=True)
print("ended in order:", os.path.exists(marker), flush=True)
os._exit(0)  # the cluster's processes end with their driver
"""


def test_the_hook_lets_replicas_end_in_order(tmp_path: Path) -> None:
    hook, marker = K8S / "base/ray/drain-node.sh", tmp_path / "ended"
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(hook), str(marker)],
        capture_output=True,
        text=True,
        env=environ,
        timeout=280,
    )
    assert "ended in order: True" in done.stdout, done.stderr[-2000:]


TOOLS = {  # a clock of its own; Ray's command line takes 3 s; a replica never ends
    "date": 'cat "$CLOCK"',
    "sleep": 'echo $(($(cat "$CLOCK") + $1)) > "$CLOCK"',
    "timeout": 'echo "$1" > "$CLOCK.timeout"; shift; exec "$@"',
    "ray": 'echo "$@" > "$CLOCK.asked"; sleep 3',
    "grep": "exit 0",
}


def test_the_hook_ends_in_time_however_slow_the_command_line_is(tmp_path: Path) -> None:
    for name, line in TOOLS.items():
        tool = tmp_path / name
        tool.write_text(f"#!/bin/sh\n{line}\n")
        tool.chmod(0o755)
    clock = tmp_path / "clock"
    clock.write_text("1000\n")
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CLOCK": str(clock)}
    subprocess.run(["sh", str(K8S / "base/ray/drain-node.sh"), "20"], env=environ, check=True)
    assert clock.read_text() == "1020\n"
    assert (tmp_path / "clock.timeout").read_text() == "20\n"  # a head that does not answer
    told = int((tmp_path / "clock.asked").read_text().split("--deadline-remaining-seconds ")[1])
    assert 15 <= told <= 20 - 3  # at least a replica's graceful_shutdown_timeout_s; Ray's own deadline is not later
