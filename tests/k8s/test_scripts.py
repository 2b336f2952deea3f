"""The scripts that pods run, run here: with a real redis-server, with stand-ins for the download and for Ray."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from helios_services.jobs.embedded import _binary, free_port
from k8s.build import K8S
from support.redis_clients import answers
from support.waiting import wait_until

PASSWORD = "0f3c9a"


def _tool(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def _run(script: str, *args: str, tools: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    installed = Path(sys.executable).parent  # `helios` itself, also where the environment is not activated
    env = {**os.environ, **environ, "PATH": f"{tools}:{installed}:{os.environ['PATH']}"}
    return subprocess.run(["sh", str(K8S / script), *args], env=env, capture_output=True, text=True, timeout=250)


@pytest.mark.parametrize(
    ("source", "synced"),
    [
        ("base/redis/job-store.conf", "always"),
        ("overlays/production/redis.conf", "always"),
        ("base/redis/gcs.conf", "everysec"),
    ],
)
def test_redis_starts_with_the_configuration_and_asks_for_the_password(
    source: str, synced: str, tmp_path: Path
) -> None:
    port = free_port()
    text = (K8S / source).read_text().replace("/data", str(tmp_path)).replace("port 6379", f"port {port}")
    (tmp_path / "redis.conf").write_text(text)
    (tmp_path / "redis-server").symlink_to(_binary())
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CONF_DIR": str(tmp_path), "RUN_DIR": str(tmp_path / "run")}
    (tmp_path / "run").mkdir()
    command = ["sh", str(K8S / "base/redis/start.sh")]
    process = subprocess.Popen(command, env={**env, "REDIS_PASSWORD": PASSWORD}, stdout=subprocess.DEVNULL)
    try:
        with Redis(port=port, password=PASSWORD) as client:
            wait_until(lambda: answers(client))
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert client.config_get("appendfsync") == {"appendfsync": synced}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert int(client.config_get("maxmemory")["maxmemory"]) >= 512 * 2**20
        with Redis(port=port) as stranger, pytest.raises(AuthenticationError):
            stranger.ping()
        assert PASSWORD not in Path(f"/proc/{process.pid}/cmdline").read_text()
        assert (tmp_path / "run/redis.conf").stat().st_mode & 0o077 == 0
    finally:
        process.terminate()
        assert process.wait() == 0, "SIGTERM does not reach redis-server"


HF = 'while [ "$1" != --local-dir ]; do shift; done; mkdir -p "$2/.cache"; echo weights > "$2/file"'
WEIGHTS = {"REPO": "a/b", "REVISION": "main"}


def test_weights_appear_whole_and_a_second_run_finds_them(tmp_path: Path) -> None:
    _tool(tmp_path, "hf", HF)
    _tool(tmp_path, "helios", 'test -e "$2/file"')
    target = tmp_path / "models" / "w"
    assert _run("base/weights/fetch.sh", tools=tmp_path, TARGET=str(target), **WEIGHTS).returncode == 0
    assert sorted(path.name for path in target.iterdir()) == ["file"]
    _tool(tmp_path, "hf", "exit 9")
    again = _run("base/weights/fetch.sh", tools=tmp_path, TARGET=str(target), **WEIGHTS)
    assert (again.returncode, again.stdout) == (0, f"weights: {target} is there\n")


@pytest.mark.parametrize(("hf", "helios"), [("exit 9", "exit 0"), (HF, "exit 1")], ids=["download", "check"])
def test_bad_weights_never_appear(hf: str, helios: str, tmp_path: Path) -> None:
    _tool(tmp_path, "hf", hf)
    _tool(tmp_path, "helios", helios)
    target = tmp_path / "w"
    assert _run("base/weights/fetch.sh", tools=tmp_path, TARGET=str(target), **WEIGHTS).returncode != 0
    assert not target.exists()


def test_gpu_pods_wait_for_weights_and_refuse_bad_ones(tmp_path: Path, checkpoint: Path) -> None:
    _tool(tmp_path, "sleep", f'mv "{tmp_path}/loading" "{tmp_path}/w"')  # the Job finishes while the pod waits
    (tmp_path / "loading").symlink_to(checkpoint)
    waited = _run("base/ray/wait-for-weights.sh", str(tmp_path / "w"), tools=tmp_path)
    assert waited.returncode == 0, waited.stderr
    assert waited.stdout.startswith(f"weights: waiting for {tmp_path}/w\n")
    (tmp_path / "bad").mkdir()
    refused = _run("base/ray/wait-for-weights.sh", str(tmp_path / "bad"), tools=tmp_path)
    assert refused.returncode != 0
    assert "helios:" in refused.stderr


def test_a_pod_whose_cluster_is_gone_does_not_wait(tmp_path: Path) -> None:
    _tool(tmp_path, "ray", "exit 1")
    _tool(tmp_path, "grep", "exit 0")  # a replica that is not its own, and does not end
    _tool(tmp_path, "sleep", f'touch "{tmp_path}/slept"; exit 1')
    assert _run("base/ray/drain-node.sh", "30", tools=tmp_path).returncode == 0
    assert not (tmp_path / "slept").exists()
