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
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from helios_engine.request import GenerationRequest
from helios_engine.sampling.state import DenoiseState
from helios_services.config import ServiceConfig
from helios_services.deployments.dispatch.dispatcher import Dispatcher
from helios_services.deployments.dispatch.stages import Conditioned, Denoised, Embedded, Encoded
from helios_services.deployments.dispatch.turns import Turn
from helios_services.jobs.records import JobFailure, Media
from helios_services.jobs.store import JobStore
from helios_services.media.artifacts import ArtifactStore
from helios_services.media.encoder import EncodedChunk, EncoderSettings, encode_chunk
from helios_services.telemetry.logs import configure_logging

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
    """chunk_s: how long a chunk is denoised. journal: a file that gets a line "<pid> <point>" for every point."""

    journal: str
    harms: tuple[Harm, ...] = ()
    chunk_s: float = 0.0


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


class StandInStages:
    """Quick and deterministic: a chunk's picture is a shade that follows from the state before it."""

    def __init__(self, plan: Plan, points: Points) -> None:
        self._chunk_s, self._points = plan.chunk_s, points

    async def embed(self, prompt: str) -> Embedded:
        """See Stages."""
        await self._points.reach(f"embed {prompt}")
        return Embedded(prompt_embeds=torch.full((2, 4), float(len(prompt))), seconds=0.001)

    async def condition(self, request: GenerationRequest, media: Media) -> Conditioned | JobFailure:
        """See Stages."""
        return Conditioned(state=DenoiseState.initial(request), seconds=0.001)

    def denoise(
        self, previous: Any, prompt_embeds: torch.Tensor, negative_prompt_embeds: torch.Tensor | None, turn: Turn
    ) -> Any:
        """See Stages."""

        async def call() -> Denoised:
            state = previous if isinstance(previous, DenoiseState) else previous.result().state
            await self._points.reach(f"denoise {state.chunks_made}")
            await asyncio.sleep(self._chunk_s)
            generator = state.generator()
            latents = torch.randn(1, 16, 9, 8, 8, generator=generator)
            return Denoised(latents=latents, state=state.advanced(latents, generator), seconds=0.001, memory_bytes=0)

        return asyncio.ensure_future(call())

    async def decode(self, denoised: Any, request: GenerationRequest) -> Encoded:
        """See Stages."""
        value = denoised if isinstance(denoised, Denoised) else denoised.result()
        shade = int(value.latents.flatten()[0].abs() * 50) % 200
        chunk = _encoded(shade, value.state.chunks_made - 1, request.fps, request.height, request.width)
        return Encoded(
            init_segment=chunk.init_segment,
            fragment=chunk.fragment,
            num_frames=33,
            decode_s=0.001,
            encode_s=0.001,
            memory_bytes=0,
        )

    def lost(self, error: BaseException) -> bool:
        """See Stages. Nothing of it can be lost but the worker as a whole."""
        return False

    def unavailable(self, error: BaseException) -> bool:
        """See Stages."""
        return False

    async def absent(self) -> frozenset[str]:
        """See Stages."""
        return frozenset()


@cache
def _encoded(shade: int, index: int, fps: int, height: int, width: int) -> EncodedChunk:
    frames = np.full((33, height, width, 3), shade, dtype=np.uint8)
    return encode_chunk(frames, index=index, fps=fps, settings=EncoderSettings())


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
