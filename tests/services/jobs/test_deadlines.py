"""Deadlines and queue timeouts: kept by the store, wherever the job is and whether or not a worker runs."""

from dataclasses import replace

import pytest

from helios_services.config import RedisConfig
from helios_services.jobs.errors import LeaseLost
from helios_services.jobs.records import Verdict
from helios_services.jobs.state import JobState
from helios_services.jobs.store import JobStore
from services.jobs.conftest import append, claim, expire, spec


@pytest.mark.parametrize("field", ["deadline_ms", "start_by_ms"])
async def test_a_job_that_waited_too_long_is_not_started(store: JobStore, redis: RedisConfig, field: str) -> None:
    await store.submit("a", spec())
    await store.submit("b", spec())
    await expire("a", redis, field)
    assert (await claim(store)).job.id == "b"
    failed = await store.get("a")
    assert failed.error is not None
    reason = {"deadline_ms": "DEADLINE_EXCEEDED", "start_by_ms": "QUEUE_TIMEOUT"}[field]
    assert (failed.state, failed.error.reason, failed.started_s) == (JobState.FAILED, reason, None)
    assert await store.dead_letters() == 0


async def test_a_running_job_ends_at_its_deadline_and_its_worker_has_no_say(
    store: JobStore, redis: RedisConfig
) -> None:
    await store.submit("a", spec())
    lease = (await claim(store)).lease
    await append(store, lease, 0)
    await expire("a", redis)
    assert await store.sweep() == []
    assert (await store.get("a")).state is JobState.FAILED
    with pytest.raises(LeaseLost):
        await append(store, lease, 1)


async def test_a_job_that_has_started_once_has_no_queue_timeout(store: JobStore, redis: RedisConfig) -> None:
    await store.submit("a", replace(spec(), timeout_s=600))
    await store.release((await claim(store)).lease)
    await expire("a", redis, "start_by_ms")
    await store.sweep()
    assert (await store.get("a")).state is JobState.QUEUED
    await expire("a", redis)  # the deadline is still looked at
    await store.sweep()
    assert (await store.get("a")).state is JobState.FAILED


async def test_the_worker_is_told_what_is_left(store: JobStore) -> None:
    await store.submit("a", replace(spec(), timeout_s=6000), within_s=3000)
    start = await store.begin_chunk((await claim(store)).lease, 0, 0)
    assert start.verdict is Verdict.GO
    assert start.left_s is not None
    assert 2000 < start.left_s <= 3000
    job = await store.get("a")
    assert job.deadline_s == pytest.approx(job.created_s + 3000)
    await store.submit("b", spec())
    assert (await store.begin_chunk((await claim(store)).lease, 0, 0)).left_s is None


async def test_the_calls_own_deadline_is_no_part_of_what_was_asked_for(store: JobStore) -> None:
    first = await store.submit("a", spec(), idempotency_key="k", within_s=30)
    assert (await store.submit("b", spec(), idempotency_key="k", within_s=29)).id == first.id


async def test_an_ended_job_has_no_deadline(store: JobStore, redis: RedisConfig) -> None:
    await store.submit("a", replace(spec(), timeout_s=600))
    await store.cancel("a")
    await expire("a", redis)
    await store.sweep()
    assert (await store.get("a")).state is JobState.CANCELLED
