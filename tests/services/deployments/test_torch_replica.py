"""A replica whose device has failed or hangs does not live on; one whose device is full makes room."""

import asyncio
import contextlib
import multiprocessing
import os
import threading
import weakref
from pathlib import Path
from typing import Any, Never

import pytest
import torch
from ray import serve
from ray.exceptions import RayActorError

from helios_services.config import DeploymentConfig, ServiceConfig
from helios_services.deployments.app import deployment_options
from helios_services.deployments.replicas.torch_replica import TorchReplica
from support.local_ray import local_serve

SURVIVED = 7


def serve_a_failing_call(error: str) -> None:
    """One call of a replica that fails; exits with 7 if the replica survives."""

    def fails() -> None:
        raise getattr(torch, error)("failed")

    async def call() -> None:
        try:
            await TorchReplica(ServiceConfig(), DeploymentConfig()).run(fails)
        except RuntimeError:
            raise SystemExit(SURVIVED) from None

    asyncio.run(call())


@pytest.mark.parametrize(("error", "code"), [("AcceleratorError", 1), ("OutOfMemoryError", SURVIVED)])
def test_a_failed_device_ends_the_process_and_a_full_one_does_not(error: str, code: int) -> None:
    process = multiprocessing.get_context("spawn").Process(target=serve_a_failing_call, args=(error,))
    process.start()
    process.join(120)
    assert process.exitcode == code


async def test_a_full_device_is_tidied_up_for_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    still_held: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: still_held.extend(ref() is not None for ref in held))

    def too_large() -> None:
        activations = torch.zeros(1)
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        await TorchReplica(ServiceConfig(), DeploymentConfig()).run(too_large)
    assert still_held == [False]


class Ended(Exception):
    """The process would have ended."""


async def checked_for_ever(replica: TorchReplica) -> None:
    async with asyncio.timeout(60):
        while True:
            await replica.check_health()
            await asyncio.sleep(0.01)


async def test_only_a_call_that_takes_too_long_by_itself_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> Never:
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    replica = TorchReplica(ServiceConfig(), DeploymentConfig(request_timeout_s=0.05))
    loaded = threading.Event()
    loading = asyncio.create_task(asyncio.to_thread(replica.load, loaded.wait))
    for _ in range(4):
        await asyncio.sleep(0.05)
        await replica.check_health()
    loaded.set()
    await loading
    for _ in range(4):  # one after the other they take longer
        await replica.run(lambda: None)
        await asyncio.sleep(0.05)
        await replica.check_health()

    ends = threading.Event()
    hanging = asyncio.create_task(replica.run(ends.wait))
    with pytest.raises(Ended):
        await checked_for_ever(replica)
    ends.set()
    await hanging
    await replica.check_health()


def answered(handle: Any) -> int:
    """The answer of a replica that lives; the first calls may still go to the one that has died."""
    while True:
        with contextlib.suppress(RayActorError):
            return int(handle.answer.remote().result(timeout_s=120))


def test_serve_replaces_a_replica_that_hangs(tmp_path: Path) -> None:
    """The thread that hangs keeps nobody: neither the process, nor the call that waits behind it, nor those after."""
    options = DeploymentConfig(num_cpus=0, request_timeout_s=1.0, health_check_period_s=0.5, max_ongoing_requests=4)

    class HangsOnce(TorchReplica):  # local to a function: Ray carries it to the replica by value
        def __init__(self) -> None:
            super().__init__(ServiceConfig(), options)
            self._both = asyncio.Barrier(2)

        async def answer(self) -> int:
            if not (tmp_path / "hung").exists():
                await self._both.wait()  # the second call must not come too late for the replica that hangs
            return await self.run(self._answer)

        def _answer(self) -> int:
            if not (tmp_path / "hung").exists():
                (tmp_path / "hung").touch()
                threading.Event().wait()
            return os.getpid()

    with local_serve(num_cpus=1):
        deployment: Any = serve.deployment(HangsOnce, name="hangs", **deployment_options(options))
        handle = serve.run(deployment.bind(), name="hangs", route_prefix=None)
        for call in [handle.answer.remote() for _ in range(2)]:
            with pytest.raises(RayActorError):
                call.result(timeout_s=120)
        assert answered(handle) > 0
