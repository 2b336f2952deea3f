"""Jobs that wait for their clients hold no worker."""

import asyncio
from dataclasses import replace

import pytest

from helios_services.config import RedisConfig
from helios_services.jobs.connector import Connector
from helios_services.jobs.keys import Keys
from helios_services.jobs.records import Control, Verdict
from helios_services.jobs.state import JobState
from helios_services.jobs.store import JobStore
from services.jobs.conftest import JOBS, append, claim, spec
from support.redis_clients import async_client

AHEAD = JOBS.live_window_chunks


async def pause(store: JobStore) -> None:
    """A job that is paused after its first chunk, and parked."""
    await store.submit("a", spec(9))
    lease = (await claim(store)).lease
    await append(store, lease, 0)
    await store.control("a", Control.PAUSE)
    assert (await store.begin_chunk(lease, 1, 0)).verdict is Verdict.PAUSED
    assert [await store.park(lease) for _ in range(2)] == [True, True]  # also when the answer was lost


async def test_a_paused_job_is_claimed_by_nobody_until_it_is_resumed(store: JobStore) -> None:
    await pause(store)
    parked = await store.get("a")
    assert (parked.state, parked.paused, parked.attempts) == (JobState.QUEUED, True, 0)
    assert await store.claim("m", "w", "n1") is None
    assert (await store.work("m")).paused_jobs == 1
    await store.control("a", Control.RESUME)
    resumed = await claim(store)
    assert resumed.checkpoint == b"state 1"
    assert (await store.begin_chunk(resumed.lease, 1, 0)).verdict is Verdict.GO


async def test_what_was_resumed_meanwhile_is_not_parked(store: JobStore) -> None:
    await store.submit("a", spec(9))
    lease = (await claim(store)).lease
    await store.control("a", Control.PAUSE)
    await store.control("a", Control.RESUME)
    assert not await store.park(lease)
    assert (await store.begin_chunk(lease, 0, 0)).verdict is Verdict.GO


@pytest.mark.parametrize("how", ["stop", "too long"])
async def test_a_parked_job_is_taken_up_to_be_ended(store: JobStore, redis: RedisConfig, how: str) -> None:
    await pause(store)
    if how == "stop":
        await store.control("a", Control.STOP)
    else:
        root = Keys(redis.namespace)
        async with async_client(redis.url) as client:
            await client.hset(root.of("job", "a"), mapping={"paused_ms": 1, "started_ms": 1, "parked_until_ms": 1})
            await client.zadd(root.of("parked"), {"a": 1})
    taken = await claim(store)
    assert (await store.begin_chunk(taken.lease, 1, 0)).verdict is Verdict.STOPPED
    await store.begin_publish(taken.lease)


async def test_a_parked_job_can_be_cancelled(store: JobStore, redis: RedisConfig) -> None:
    await pause(store)
    await store.cancel("a")
    async with async_client(redis.url) as client:
        assert await client.exists(Keys(redis.namespace).of("parked")) == 0


async def test_a_session_waits_for_its_reader_and_loses_no_chunk(store: JobStore) -> None:
    await store.submit("a", replace(spec(0), session=True))
    lease = (await claim(store)).lease
    for index in range(AHEAD):
        assert (await store.begin_chunk(lease, index, 0)).verdict is Verdict.GO
        await append(store, lease, index)
    assert (await store.begin_chunk(lease, AHEAD, 0)).verdict is Verdict.AHEAD
    assert await store.park(lease)
    assert await store.claim("m", "w", "n1") is None
    job = await store.get("a")
    assert (job.first_chunk, job.chunks_done) == (0, AHEAD)  # not one has been dropped
    await store.chunks_read("a", 2)
    resumed = await claim(store)
    for index in (AHEAD, AHEAD + 1):
        assert (await store.begin_chunk(resumed.lease, index, 0)).verdict is Verdict.GO
        await append(store, resumed.lease, index)
    assert (await store.begin_chunk(resumed.lease, AHEAD + 2, 0)).verdict is Verdict.AHEAD


async def test_a_parked_session_whose_client_has_gone_is_ended(redis: RedisConfig) -> None:
    store = Connector(redis, JOBS.model_copy(update={"session_grace_s": 0.3})).store()
    await store.submit("a", replace(spec(9), session=True))
    lease = (await claim(store)).lease
    await store.control("a", Control.PAUSE)
    assert await store.park(lease)
    await store.keep_session("a")
    while (taken := await store.claim("m", "w", "n")) is None:  # noqa: ASYNC110 - time is what is waited for
        await asyncio.sleep(0.05)
    assert (await store.begin_chunk(taken.lease, 0, 0)).verdict is Verdict.STOPPED
    await store.close()


async def test_a_reader_that_begins_at_the_live_edge_is_not_waited_for(store: JobStore) -> None:
    await store.submit("a", replace(spec(0), session=True))
    lease = (await claim(store)).lease
    for index in range(AHEAD):
        await store.begin_chunk(lease, index, 0)
        await append(store, lease, index)
    assert await store.park(lease)
    await store.chunks_read("a", 10**6)  # no further than there are chunks
    resumed = await claim(store)
    for index in range(AHEAD, 2 * AHEAD):
        assert (await store.begin_chunk(resumed.lease, index, 0)).verdict is Verdict.GO
        await append(store, resumed.lease, index)
    assert (await store.begin_chunk(resumed.lease, 2 * AHEAD, 0)).verdict is Verdict.AHEAD
