"""Ray's head keeps its state in a Redis of k8s/: over TLS, as a user that has only Ray's keys."""

import os
import subprocess
import sys
from pathlib import Path

from helios_services.jobs.embedded import free_port
from k8s.redis_pod import redis_pod

PROGRAM = """
import os
import sys

import ray
from ray._private.gcs_utils import cleanup_redis_storage
from ray.cluster_utils import Cluster

port, password = int(sys.argv[1]), sys.argv[2]
head = {"num_cpus": 1, "include_dashboard": False, "redis_username": "ray", "redis_password": password}
cluster = Cluster(initialize_head=True, head_node_args=head)
ray.init(address=cluster.address, log_to_driver=False)

@ray.remote
class Kept:
    def answer(self):
        return 42

kept = Kept.options(name="kept", lifetime="detached").remote()
print("answer:", ray.get(kept.answer.remote()), flush=True)
ray.shutdown()
cluster.shutdown()
cleaned = cleanup_redis_storage(  # as KubeRay's clean-up Job does
    host="localhost", port=port, username="ray", password=password, use_ssl=True, storage_namespace="default"
)
print("cleaned:", cleaned, flush=True)
os._exit(0)
"""


def test_the_head_works_with_it(tmp_path: Path) -> None:
    users = "base/redis/users.gcs"
    with redis_pod(tmp_path, free_port(), conf="base/redis/gcs.conf", users=users) as pod:
        environ = {
            **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
            "RAY_REDIS_ADDRESS": f"rediss://localhost:{pod.port}",
            "RAY_REDIS_CA_CERT": str(pod.tls / "ca.crt"),
        }
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(pod.port), pod.password("ray")],
            env=environ,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert "answer: 42" in done.stdout, done.stderr[-2000:]
        assert "cleaned: True" in done.stdout, done.stderr[-2000:]
        with pod.client("admin") as admin:
            assert admin.info("commandstats")["cmdstat_hset"]["calls"] > 0
            assert admin.acl_log() == []  # it needs no right that it has not
            assert admin.keys("*") == []
