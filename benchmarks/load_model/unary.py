"""Unary calls: submissions as fast as they go, and each call at a fixed rate."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

from benchmarks.load_model.processes import CpuUse, Processes, stubs
from helios.v1 import video_generation_pb2 as pb

PARAMS = pb.GenerationParams(prompt="a lake at night", num_frames=66, height=384, width=640, pyramid_steps=[2, 2, 2])
Call = Callable[[Any], Awaitable[Any]]


def quantile(values: list[float], share: float) -> float:
    """The value below which `share` of all are."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and 99th percentile, in milliseconds."""
    return {"count": len(seconds), "p50_ms": quantile(seconds, 0.5) * 1e3, "p99_ms": quantile(seconds, 0.99) * 1e3}


async def submit(stub: Any) -> pb.Job:
    """A submission as clients make them, with a key."""
    job: pb.Job = await stub.SubmitJob(pb.SubmitJobRequest(params=PARAMS, idempotency_key=uuid4().hex))
    return job


async def submissions(processes: Processes, concurrency: int, seconds: float) -> dict[str, Any]:
    """So many callers, each of which submits again as soon as it has its answer."""
    channels = processes.channels()
    each = stubs(channels)
    over = 0.0
    taken: list[float] = []

    async def caller(stub: Any) -> None:
        while (start := time.perf_counter()) < over:
            await submit(stub)
            taken.append(time.perf_counter() - start)

    for stub in each:
        await submit(stub)  # connects
    over = time.perf_counter() + seconds
    start = time.perf_counter()
    with CpuUse(processes) as cpu:
        await asyncio.gather(*(caller(each[number % len(each)]) for number in range(concurrency)))
    elapsed_s = time.perf_counter() - start
    for channel in channels:
        await channel.close()
    return {"concurrency": concurrency, "per_s": len(taken) / elapsed_s, **summary(taken), "cores": cpu.shares}


async def at_rate(processes: Processes, rate: float, seconds: float) -> dict[str, dict[str, float]]:
    """Each call in turn, begun at even times whether or not earlier ones are answered; times count from then."""
    channels = processes.channels()
    spread = itertools.cycle(stubs(channels))
    jobs = [(await submit(next(spread))).id for _ in range(int(rate * seconds))]
    left = iter(jobs)
    any_job = itertools.cycle(jobs)
    calls: dict[str, Call] = {
        "SubmitJob": submit,
        "GetJob": lambda stub: stub.GetJob(pb.GetJobRequest(job_id=next(any_job))),
        "ListJobs (50 jobs)": lambda stub: stub.ListJobs(pb.ListJobsRequest(page_size=50)),
        "UpdatePrompt": lambda stub: stub.UpdatePrompt(pb.UpdatePromptRequest(job_id=next(any_job), prompt="the sun")),
        "CancelJob": lambda stub: stub.CancelJob(pb.CancelJobRequest(job_id=next(left))),
        "ListModels": lambda stub: stub.ListModels(pb.ListModelsRequest()),
    }
    found = {}
    for name, call in calls.items():
        slower = rate / 10 if name.startswith("ListJobs") else rate
        found[name] = {"rate": slower, **summary(await _paced(call, spread, slower, seconds))}
    for channel in channels:
        await channel.close()
    return found


async def _paced(call: Call, spread: "itertools.cycle[Any]", rate: float, seconds: float) -> list[float]:
    taken: list[float] = []
    begun = time.perf_counter()

    async def one(due: float) -> None:
        await call(next(spread))
        taken.append(time.perf_counter() - due)

    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            due = begun + number / rate
            await asyncio.sleep(max(due - time.perf_counter(), 0.0))
            group.create_task(one(due))
    return taken
