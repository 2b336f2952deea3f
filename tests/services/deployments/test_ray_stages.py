"""Which stages have a replica, as Serve's controller tells it, or as it does not."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve
from ray.exceptions import RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ReplicaState

from helios_services.deployments.dispatch.stages import Busy
from helios_services.deployments.replicas import ray_stages
from helios_services.deployments.replicas.ray_stages import RayStages

RUNNING, MIGRATING = ReplicaState.RUNNING, ReplicaState.PENDING_MIGRATION
STARTING, STOPPING = ReplicaState.STARTING, ReplicaState.STOPPING


def stages() -> RayStages:
    handles: list[Any] = [SimpleNamespace(deployment_name=name) for name in ("text-encoder", "denoiser", "decoder")]
    return RayStages("helios", *handles)


def status(**states: set[ReplicaState]) -> Any:
    """The status of an application; deployments that are not named have a replica that runs."""
    given = {"text-encoder": states.get("text", {RUNNING})}
    given |= {name: states.get(name, {RUNNING}) for name in ("denoiser", "decoder")}
    deployments = {name: SimpleNamespace(replica_states=dict.fromkeys(found, 1)) for name, found in given.items()}
    return SimpleNamespace(applications={"helios": SimpleNamespace(deployments=deployments)})


@pytest.mark.parametrize(
    ("told", "absent"),
    [
        (status(), set()),
        (status(denoiser={STARTING, STOPPING}), {"denoise"}),
        (status(denoiser=set(), decoder={STARTING}), {"denoise", "decode", "condition"}),
        (status(text={MIGRATING, STARTING}), set()),  # its node is drained, and calls still go to it
    ],
)
async def test_what_the_controller_tells(monkeypatch: pytest.MonkeyPatch, told: Any, absent: set[str]) -> None:
    monkeypatch.setattr(serve, "status", lambda: told)
    assert await stages().absent() == frozenset(absent)


@pytest.mark.parametrize("error", [RayServeException("no controller"), RuntimeError("no connection")])
async def test_a_controller_that_fails_tells_nothing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(serve, "status", fail)
    assert await stages().absent() is None
    monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(applications={}))
    assert await stages().absent() is None


async def test_a_controller_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answers = list[None](), threading.Event()

    def wait() -> Any:
        asked.append(None)
        answers.wait()
        return status(decoder=set())

    monkeypatch.setattr(serve, "status", wait)
    monkeypatch.setattr(ray_stages, "STATUS_TIMEOUT_S", 0.05)
    seen = stages()
    assert [await seen.absent() for _ in range(3)] == [None] * 3
    assert len(asked) == 1
    monkeypatch.setattr(ray_stages, "STATUS_TIMEOUT_S", 60)
    answers.set()
    assert await seen.absent() == frozenset({"decode", "condition"})


def test_a_replica_that_is_busy_is_asked_again() -> None:
    error = RayTaskError("condition", "", Busy("2 uploads are being decoded"))
    assert stages().unavailable(error)
    assert not stages().lost(error)
