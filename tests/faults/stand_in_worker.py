"""A stand-in worker: the real dispatcher in a process of its own, with quick stages that need neither Ray nor a model.

It harms itself at named points, so that a test decides exactly where a worker dies, stops, waits or errs. The points
are "before" and "after" the store's calls in STORE_CALLS and the upload of a finished video ("before upload", …), the
embedding of a prompt ("embed <prompt>") and the denoising of a chunk ("denoise <index>").
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from helios_services.config import ServiceConfig
from helios_services.deployments.dispatch.dispatcher import Dispatcher
from helios_services.deployments.dispatch.stages import Embedded
from helios_services.jobs.store import JobStore
from helios_services.media.artifacts import ArtifactStore
from helios_services.telemetry.logs import configure_logging
from support.stages import QuickStages

STORE_CALLS = ("claim", "append_chunk", "begin_publish", "succeed")
CHECK_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Harm:
    """What the worker does to itself when it comes to `point` for the `nth` time.

    wait: as long as the file `gate` exists. block: the event loop, as long. jump: its clock, by `seconds`.
    """

    point: str
    action: Literal["kill", "stop", "wait", "block", "jump"]
    nth: int = 1
    gate: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """chunk_s: how long a chunk is denoised. journal: a file that gets a line "<pid> <point>" for every point.

    moving: pictures move (QuickStages).
    full_disk: as long as this file exists, uploads go to a disk without room (ENOSPC).
    """

    journal: str
    harms: tuple[Harm, ...] = ()
    chunk_s: float = 0.0
    full_disk: str = ""
    moving: bool = False


class Points:
    """Counts the points that the worker comes to, and does the harm that is due."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._counts = plan, Counter[str]()
        self._clock_s = 0.0
        true_time = time.time
        time.time = lambda: true_time() + self._clock_s

    async def reach(self, point: str) -> None:
        """On the event loop."""
        for harm in self._due(point):
            while harm.action == "wait" and Path(harm.gate).exists():  # noqa: ASYNC110 - the test's hand is a file
                await asyncio.sleep(0.02)

    def reach_on_thread(self, point: str) -> None:
        """On a thread of its own."""
        for harm in self._due(point):
            while harm.action == "wait" and Path(harm.gate).exists():
                time.sleep(0.02)

    def _due(self, point: str) -> list[Harm]:
        self._counts[point] += 1
        with Path(self._plan.journal).open("a") as journal:
            journal.write(f"{os.getpid()} {point}\n")
        due = [harm for harm in self._plan.harms if (harm.point, harm.nth) == (point, self._counts[point])]
        for harm in due:
            match harm.action:
                case "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "stop":
                    os.kill(os.getpid(), signal.SIGSTOP)
                case "block":
                    while Path(harm.gate).exists():
                        time.sleep(0.02)
                case "jump":
                    self._clock_s += harm.seconds
        return due


class StandInStages(QuickStages):
    """Stages that come to the worker's points. Nothing of them can be lost but the worker as a whole."""

    def __init__(self, plan: Plan, points: Points) -> None:
        self._chunk_s, self._points, self.moving = plan.chunk_s, points, plan.moving

    async def reach(self, point: str) -> None:
        """A chunk takes as long as the plan says."""
        await self._points.reach(point)
        if point.startswith("denoise"):
            await asyncio.sleep(self._chunk_s)

    async def embed(self, prompt: str) -> Embedded:
        """See Stages."""
        await self._points.reach(f"embed {prompt}")
        return await super().embed(prompt)


def run(config: str, plan: Plan, log: str) -> None:
    """Works until SIGTERM. config: JSON of a ServiceConfig."""
    with Path(log).open("a") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    settings = ServiceConfig.model_validate_json(config)
    configure_logging(settings.log_level)
    points = Points(plan)
    for name in STORE_CALLS:
        setattr(JobStore, name, _with_points(getattr(JobStore, name), name, points))
    upload = ArtifactStore.publish

    def publish(store: ArtifactStore, file: Path, name: str) -> None:
        points.reach_on_thread("before upload")
        if plan.full_disk and Path(plan.full_disk).exists():
            Path(settings.artifacts, f"{name}.partial").symlink_to("/dev/full")
        upload(store, file, name)
        points.reach_on_thread("after upload")

    setattr(ArtifactStore, "publish", publish)  # noqa: B010 - mypy: a method is not to be assigned to
    asyncio.run(_work(settings, StandInStages(plan, points)))


def _with_points(call: Callable[..., Awaitable[Any]], name: str, points: Points) -> Callable[..., Awaitable[Any]]:
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        if name != "claim":  # an idle worker's claims are no points
            await points.reach(f"before {name}")
        answer = await call(*args, **kwargs)
        if name != "claim" or answer is not None:
            await points.reach(f"after {name}")
        return answer

    return wrapped


async def _work(config: ServiceConfig, stages: StandInStages) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    dispatcher = Dispatcher(config, stages)
    while not stop.is_set():
        dispatcher.check()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), CHECK_S)
    await dispatcher.drain()
