"""A real dispatcher with one busy denoiser: who gets the next chunk."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
import torch

from helios_services.deployments.dispatch.dispatcher import Dispatcher
from helios_services.deployments.dispatch.turns import Expired, Turn, Turns
from helios_services.jobs.records import Account, JobSpec, Priority
from helios_services.jobs.state import JobState
from services.deployments.bench import Bench, FakeStages
from services.jobs.conftest import expire
from support.jobs import ended
from support.waiting import until

TIMEOUT_S = 600.0


class OneDenoiser(FakeStages):
    """Chunks are made one at a time, each when the test lets it; `made` names their jobs by the prompts."""

    def __init__(self) -> None:
        super().__init__()
        self.queue, self.waiting, self.made = Turns(linger_s=1.0), list[str](), list[str]()
        self.late = set[str]()
        """Jobs whose deadline passes before their chunks have a turn."""
        self.go = asyncio.Semaphore(0)

    async def embed(self, prompt: str) -> Any:
        embedded = await super().embed(prompt)
        return type(embedded)(prompt_embeds=torch.full((2, 4), float(ord(prompt[0]))), seconds=0.0)

    def denoise(self, previous: Any, prompt_embeds: torch.Tensor, negative: Any, turn: Turn) -> Any:
        name = chr(int(prompt_embeds[0, 0]))
        if name in self.late:
            assert turn.left_s is not None
            assert 0 < turn.left_s <= TIMEOUT_S
            turn = replace(turn, left_s=0.01)

        async def call() -> Any:
            self.waiting.append(name)
            async with self.queue.take(turn):
                self.waiting.remove(name)
                self.made.append(name)
                await self.go.acquire()
                return await super(OneDenoiser, self).denoise(previous, prompt_embeds, negative, turn)

        return asyncio.ensure_future(call())


@pytest.fixture
async def busy(bench: Bench) -> AsyncIterator[tuple[Bench, OneDenoiser]]:
    """A dispatcher (two slots, one for interactive jobs) whose denoiser makes a chunk of batch job "a"; "b" waits."""
    stages = bench.stages = OneDenoiser()
    model = bench.config.model.model_copy(update={"name": "m"})
    bench.config = bench.config.model_copy(update={"model": model})
    await submit(bench, "a", Priority.BATCH)
    dispatcher = Dispatcher(bench.config, stages)
    try:
        await until(lambda: stages.made == ["a"])
        for name in "bc":
            await submit(bench, name, Priority.BATCH)
        await until(lambda: stages.waiting == ["b"])
        yield bench, stages
    finally:
        for _ in range(200):
            stages.go.release()
        await dispatcher.drain()


async def submit(bench: Bench, name: str, priority: Priority, account: str = "", timeout_s: float | None = None) -> str:
    params: dict[str, Any] = {"prompt": name, "height": 64, "width": 64, "num_frames": 33 * 6, "fps": 24}
    spec = JobSpec(
        model="m", params=params | {"pyramid_steps": [1, 1, 1]}, chunks_total=6, priority=priority, timeout_s=timeout_s
    )
    await bench.store.submit(f"{name}-{uuid4().hex}", spec, account=Account(id=account))
    return name


async def test_an_interactive_job_starts_when_the_chunk_in_progress_ends(busy: tuple[Bench, OneDenoiser]) -> None:
    bench, stages = busy
    stages.queue._linger_s = 600.0  # however long the next chunk's call takes to come
    await submit(bench, "i", Priority.INTERACTIVE)
    await until(lambda: sorted(stages.waiting) == ["b", "i"])  # claimed though all other slots are busy
    stages.go.release()
    await until(lambda: len(stages.made) == 2)
    assert stages.made == ["a", "i"]
    for _ in range(6):
        stages.go.release()
    await until(lambda: len(stages.made) == 7 and stages.queue._kept is not None)
    stages.queue._grant()  # the moment is over
    await until(lambda: len(stages.made) == 8)
    assert stages.made[1:7] == ["i"] * 6  # and keeps the denoiser, chunk after chunk


async def test_a_second_interactive_job_gets_the_worker_of_a_batch_job(busy: tuple[Bench, OneDenoiser]) -> None:
    bench, stages = busy
    for name in "ij":
        await submit(bench, name, Priority.INTERACTIVE)
    await until(lambda: sorted(stages.waiting) == ["b", "i"])
    stages.go.release()  # the end of a's chunk: a gives way to j
    await until(lambda: "j" in stages.waiting)
    jobs = {job.id[0]: job for job in (await bench.store.page(limit=9)).jobs}
    assert (jobs["a"].state, jobs["a"].chunks_done, jobs["a"].attempts) == (JobState.QUEUED, 1, 0)
    assert jobs["j"].state is JobState.RUNNING


async def test_everything_ends_once_and_whole_whoever_gave_way(busy: tuple[Bench, OneDenoiser]) -> None:
    bench, stages = busy
    for name, priority, account in (("i", "interactive", "x"), ("n", "normal", "y"), ("o", "normal", "z")):
        await submit(bench, name, Priority(priority), account)
    for _ in range(6 * 6):
        stages.go.release()

    async def over() -> bool:
        return all(job.ended_s for job in (await bench.store.page(limit=9)).jobs)

    await until(over)
    jobs = (await bench.store.page(limit=9)).jobs
    assert {job.state for job in jobs} == {JobState.SUCCEEDED}
    assert all(job.chunks_done == 6 for job in jobs)
    assert sorted(stages.made) == sorted("abcino" * 6)  # no chunk was made twice
    last = {name: len(stages.made) - stages.made[::-1].index(name) for name in "abcino"}
    assert last["i"] < min(last[name] for name in "no") < max(last[name] for name in "no") < last["c"]


async def test_a_chunk_whose_deadline_passes_in_the_denoisers_queue_is_not_made(
    busy: tuple[Bench, OneDenoiser],
) -> None:
    bench, stages = busy
    stages.late.add("i")
    await submit(bench, "i", Priority.INTERACTIVE, timeout_s=TIMEOUT_S)
    await until(lambda: "i" in stages.waiting)
    (job,) = (await bench.store.page(limit=1)).jobs
    await expire(job.id, bench.config.redis)
    await asyncio.sleep(0.05)
    stages.go.release()
    await until(lambda: stages.made == ["a", "b"])

    job = await ended(bench.store, job.id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.reason == "DEADLINE_EXCEEDED"
    assert Expired.__name__ not in job.error.message
