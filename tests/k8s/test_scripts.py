"""The scripts that pods run, run here: with a real redis-server, with stand-ins for Ray."""

import os
import subprocess
import sys
from pathlib import Path

from k8s.build import K8S


def _tool(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def _run(script: str, *args: str, tools: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    installed = Path(sys.executable).parent  # `helios` itself, also where the environment is not activated
    env = {**os.environ, **environ, "PATH": f"{tools}:{installed}:{os.environ['PATH']}"}
    return subprocess.run(["sh", str(K8S / script), *args], env=env, capture_output=True, text=True, timeout=250)


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
