"""The side-car of Ray pods: whatever their processes log comes out of it, whole lines, once."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from k8s.build import K8S
from k8s.manifests import Manifests

SCRIPT = K8S / "base/ray/follow-logs.py"


@pytest.fixture
def follower(tmp_path: Path) -> Any:
    spec = spec_from_file_location("follow_logs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "serve").mkdir()
    return module.Follower(tmp_path)


def test_lines_come_once_and_whole_from_files_that_come_and_grow(follower: Any, tmp_path: Path) -> None:
    assert follower.lines() == []
    file = tmp_path / "worker-a1.err"
    file.write_text('{"event": "chunk_done"}\nTraceback\n  half')
    assert follower.lines() == ['{"event": "chunk_done"}', "worker-a1.err: Traceback"]
    (tmp_path / "raylet.out").write_text("not a replica's\n")
    (tmp_path / "serve" / "replica_denoiser.log").write_text("started\n")
    with file.open("a") as more:
        more.write(" a line\n")
    assert follower.lines() == ["worker-a1.err:   half a line", "replica_denoiser.log: started"]
    assert follower.lines() == []


def test_a_rotated_file_is_read_to_its_end(follower: Any, tmp_path: Path) -> None:
    file = tmp_path / "worker-a1.out"
    file.write_text("one\n")
    assert follower.lines() == ["worker-a1.out: one"]
    with file.open("a") as more:
        more.write("two\n")
    file.rename(tmp_path / "worker-a1.out.1")
    file.write_text("three\n")
    assert sorted(follower.lines()) == ["worker-a1.out.1: two", "worker-a1.out: three"]


def test_every_ray_pod_has_it(manifests: Manifests) -> None:
    for pod in manifests.pods:
        if pod.group is None:
            continue
        (logs,) = (container for container in pod.spec["initContainers"] if container["name"] == "logs")
        assert logs["restartPolicy"] == "Always"  # it goes on, and ends after the others
        folder = next(mount["mountPath"] for mount in logs["volumeMounts"] if mount["name"] == "tmp")
        assert logs["command"][-1] == f"{folder}/ray/session_latest/logs"
        assert f"/opt/helios/{SCRIPT.name}" in logs["command"]
        mounts = {mount["name"]: mount["mountPath"] for mount in pod.main["volumeMounts"]}
        assert mounts["tmp"] == folder
