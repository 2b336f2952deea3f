"""A dispatcher takes jobs only while the stages are there that make them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from helios_services.config import AutoscalingConfig, ServiceConfig
from helios_services.deployments.dispatch import readiness
from helios_services.deployments.dispatch.dispatcher import Dispatcher
from helios_services.jobs.state import JobState
from services.deployments.bench import CHUNKS, Bench, FakeStages
from support.jobs import ended
from support.waiting import until

LOOKS = 3


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "PERIOD_S", 0.02)


def without(*stages: str) -> FakeStages:
    """Stages of which these have no replica; calls of the others are answered."""
    made = FakeStages()
    made.gone = frozenset(stages)
    return made


@asynccontextmanager
async def dispatching(config: ServiceConfig, stages: FakeStages) -> AsyncIterator[Callable[[], bool]]:
    """A dispatcher; gives what its metric says."""
    model = config.model.model_copy(update={"name": "m"})
    dispatcher = Dispatcher(config.model_copy(update={"model": model}), stages)
    registry = dispatcher.metrics.registry
    try:
        yield lambda: registry.get_sample_value("helios_dispatcher_ready") == 1.0
    finally:
        async with asyncio.timeout(120):  # also while it waits for stages
            await dispatcher.drain()


async def looked(stages: FakeStages) -> None:
    """Waits until the dispatcher has looked some more times."""
    goal = stages.asked + LOOKS
    await until(lambda: stages.asked >= goal)


@pytest.mark.parametrize("missing", ["text", "denoise", "decode"])
async def test_the_jobs_are_for_the_dispatcher_that_has_all_stages(bench: Bench, missing: str) -> None:
    loading, whole = without(missing), FakeStages()
    async with dispatching(bench.config, loading) as is_ready:
        job_id = await bench.submit()
        await looked(loading)
        assert (await bench.store.get(job_id)).state is JobState.QUEUED
        async with dispatching(bench.config, whole):
            job = await ended(bench.store, job_id)
        assert (job.state, job.attempts) == (JobState.SUCCEEDED, 1)
        assert (loading.log, loading.prompts, is_ready()) == ([], [], False)

        loading.gone = frozenset()  # it has come up
        second = await ended(bench.store, await bench.submit())
        assert (second.state, second.attempts, is_ready()) == (JobState.SUCCEEDED, 1, True)


async def test_a_stage_lost_later_ends_no_job_and_begins_none(bench: Bench) -> None:
    stages, hold = FakeStages(), asyncio.Event()
    stages.before["denoise 1"] = hold.wait  # type: ignore[assignment]
    async with dispatching(bench.config, stages) as is_ready:
        first = await bench.submit()
        await until(lambda: "denoise 1 starts" in stages.log)
        stages.gone = frozenset({"denoise"})
        await until(lambda: not is_ready())
        hold.set()
        assert (await ended(bench.store, first)).state is JobState.SUCCEEDED
        made, second = len(stages.seen), await bench.submit()
        await looked(stages)
        assert ((await bench.store.get(second)).state, len(stages.seen)) == (JobState.QUEUED, made)
        stages.gone = None  # nobody can tell: what was seen last holds
        await looked(stages)
        assert (await bench.store.get(second)).state is JobState.QUEUED
        stages.gone = frozenset()
        await until(is_ready)
        stages.gone = None
        await looked(stages)
        assert is_ready()
        assert (await ended(bench.store, second)).chunks_done == CHUNKS


async def test_nothing_is_taken_before_anyone_could_tell(bench: Bench) -> None:
    stages = FakeStages()
    stages.gone = None
    async with dispatching(bench.config, stages) as is_ready:
        job_id = await bench.submit()
        await looked(stages)
        assert ((await bench.store.get(job_id)).state, is_ready()) == (JobState.QUEUED, False)


async def test_a_stage_that_may_scale_to_zero_is_not_waited_for(bench: Bench) -> None:
    """Its first replica is started for the job."""
    from_zero = bench.config.denoiser.model_copy(update={"autoscaling": AutoscalingConfig(min_replicas=0)})
    async with dispatching(bench.config.model_copy(update={"denoiser": from_zero}), without("denoise")) as is_ready:
        assert (await ended(bench.store, await bench.submit())).state is JobState.SUCCEEDED
        assert is_ready()
