"""The scripts that pods run, run here: with a real redis-server, with stand-ins for the download and for Ray."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from k8s.build import K8S


def _tool(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def _run(script: str, *args: str, tools: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    installed = Path(sys.executable).parent  # `helios` itself, also where the environment is not activated
    env = {**os.environ, **environ, "PATH": f"{tools}:{installed}:{os.environ['PATH']}"}
    return subprocess.run(["sh", str(K8S / script), *args], env=env, capture_output=True, text=True, timeout=250)


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
