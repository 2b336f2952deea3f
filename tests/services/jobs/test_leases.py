"""Leases, lease tokens, lost workers and lost replies."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import uuid4

import pytest

from helios_services.config import JobsConfig, RedisConfig
from helios_services.jobs.connector import Connector
from helios_services.jobs.errors import LeaseLost
from helios_services.jobs.heartbeat import Heartbeat
from helios_services.jobs.keys import Keys
from helios_services.jobs.records import JobFailure, Lease
from helios_services.jobs.scripts import source
from helios_services.jobs.state import TRANSITIONS, Event, JobState
from helios_services.jobs.store import JobStore
from services.jobs.conftest import JOBS, append, claim, expire, let_lapse, spec
from support.redis_clients import async_client, blocking_client
from support.waiting import until

RENEWALS = 12
"""Twelve heartbeats, one every sixth of a lease: two leases."""
BLOCKED_AT_MOST_S = 120.0
Write = Callable[[JobStore, Lease], Coroutine[Any, Any, Any]]
WRITES: dict[str, Write] = {
    "append": lambda store, lease: append(store, lease, 0),
    "prompt": lambda store, lease: store.save_prompt_embeds(lease, "key", b"x", keep=()),
    "publish": lambda store, lease: store.begin_publish(lease),
    "succeed": lambda store, lease: store.succeed(lease, artifact="x", video_bytes=1),
    "fail": lambda store, lease: store.fail(lease, JobFailure(reason="R", message="m")),
    "release": lambda store, lease: store.release(lease),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
@pytest.mark.parametrize("taken_by", ["another worker", "cancel"])
async def test_a_stale_token_is_refused_everywhere(
    store: JobStore, redis: RedisConfig, write: Write, taken_by: str
) -> None:
    await store.submit("a", spec(chunks=1))
    stale = (await claim(store)).lease
    if taken_by == "cancel":
        await store.cancel("a")
    else:
        await let_lapse(store, redis)
        await claim(store)
    before = await store.get("a")
    with pytest.raises(LeaseLost):
        await write(store, stale)
    assert await store.get("a") == before


async def test_a_lost_worker_is_replaced_at_its_checkpoint(store: JobStore, redis: RedisConfig) -> None:
    await store.submit("a", spec())
    lost = await claim(store)
    await store.save_prompt_embeds(lost.lease, "key", b"embedding", keep=())
    await append(store, lost.lease, 0)
    assert await let_lapse(store, redis) == ["a"]
    resumed = await claim(store)
    assert (resumed.checkpoint, resumed.job.chunks_done) == (b"state 1", 1)
    assert resumed.prompt_embeds == {"key": b"embedding"}
    assert resumed.job.attempts == 2
    await append(store, resumed.lease, 1)
    assert [chunk.index for chunk in await store.chunk_records(await store.get("a"))] == [0, 1]


async def test_a_poison_job_fails_and_progress_forgives(store: JobStore, redis: RedisConfig) -> None:
    await store.submit("a", spec(chunks=9))
    for index in range(4):  # more losses than max_attempts, each after a finished chunk
        await append(store, (await claim(store)).lease, index)
        await let_lapse(store, redis)
    for _ in range(JOBS.max_attempts - 1):  # the last lapse above was the first without progress since
        assert (await store.get("a")).state is JobState.QUEUED
        await claim(store)
        await let_lapse(store, redis)
    failed = await store.get("a")
    assert failed.state is JobState.FAILED
    assert failed.error is not None
    assert failed.error.reason == "WORKER_LOST"
    assert await store.claim("m", "worker", "n") is None


async def test_concurrent_claimers_share_no_job(store: JobStore) -> None:
    for number in range(20):
        await store.submit(f"j{number}", spec())
    claims = await asyncio.gather(*(store.claim("m", f"w{n}", uuid4().hex) for n in range(30)))
    ids = [claimed.job.id for claimed in claims if claimed]
    assert sorted(ids) == sorted(f"j{n}" for n in range(20))


async def test_a_lapsed_lease_is_reclaimed_by_one_of_many(redis: RedisConfig, store: JobStore) -> None:
    hasty = Connector(redis, JOBS.model_copy(update={"lease_s": 0.02})).store()
    await hasty.submit("a", spec())
    await claim(hasty)
    await hasty.close()
    await asyncio.sleep(0.05)  # past the lease, which runs out by itself here
    reclaimed = await asyncio.gather(*(store.sweep() for _ in range(20)))
    assert [job_id for job_ids in reclaimed for job_id in job_ids] == ["a"]
    claims = await asyncio.gather(*(store.claim("m", f"w{n}", uuid4().hex) for n in range(20)))
    assert sum(claimed is not None for claimed in claims) == 1


async def test_repeated_calls_have_one_effect(store: JobStore) -> None:
    """As after a lost reply: the same call again gives the same answer and changes nothing."""
    for _ in range(2):
        await store.submit("a", spec(chunks=1))
        await store.submit("b", spec(chunks=1))
    first, again = [await store.claim("m", "worker", "same nonce") for _ in range(2)]
    assert first is not None
    assert first == again
    lease = first.lease
    for write in (WRITES["append"], WRITES["publish"], WRITES["succeed"]):
        await write(store, lease)
        settled = await store.get("a")
        await write(store, lease)
        assert await store.get("a") == settled
    assert len(await store.chunk_records(await store.get("a"))) == 1
    other = await claim(store)
    for _ in range(2):
        await store.release(other.lease)
    assert (await store.depths("m"))[other.job.spec.priority] == 1


@pytest.mark.parametrize("index", [1, 2, 5])
async def test_chunks_out_of_order_are_refused(store: JobStore, index: int) -> None:
    await store.submit("a", spec(chunks=2))
    lease = (await claim(store)).lease
    with pytest.raises(ValueError, match="0 chunks are done"):
        await append(store, lease, index)
    with pytest.raises(ValueError, match="0 chunks are done"):
        await store.begin_publish(lease)


async def test_scripts_allow_what_the_table_allows_and_nothing_else(redis: RedisConfig) -> None:
    """Every state and event, through the real scripts."""
    for state in JobState:
        for event in Event:
            own = redis.model_copy(update={"namespace": uuid4().hex})
            store = Connector(own, JOBS).store()
            reached = await _try(store, own, state, event)
            assert reached == TRANSITIONS.get((state, event)), (state, event)
            await store.close()


async def _try(store: JobStore, redis: RedisConfig, state: JobState, event: Event) -> JobState | None:
    await store.submit("a", spec(chunks=1))
    lease = Lease(job_id="a", token=0, worker_id="w")
    if state is JobState.CANCELLED:
        await store.cancel("a")
    elif state is not JobState.QUEUED:
        lease = (await claim(store)).lease
        await append(store, lease, 0)
        if state in (JobState.PUBLISHING, JobState.SUCCEEDED):
            await store.begin_publish(lease)
        if state is JobState.SUCCEEDED:
            await store.succeed(lease, artifact="x", video_bytes=1)
        if state is JobState.FAILED:
            await store.fail(lease, JobFailure(reason="WORKER_LOST", message="m"))
    if event is Event.EXPIRE:
        await expire("a", redis)
    before = await store.get("a")
    assert before.state is state
    try:
        match event:
            case Event.CLAIM:
                await store.claim("m", "w", uuid4().hex)
            case Event.CANCEL:
                await store.cancel("a")
            case Event.EXPIRE:
                await store.sweep()
            case Event.REQUEUE:
                await store.requeue("a", "nonce")
            case _:
                await WRITES[event](store, lease)
    except Exception:
        assert await store.get("a") == before
    after = await store.get("a")
    return after.state if after != before else None


def test_the_table_reaches_every_script() -> None:
    assert "queued={claim='running', cancel='cancelled', expire='failed'}" in source("claim")
    assert "LEASED = {publishing=true, running=true}" in source("claim")


async def test_heartbeat_keeps_a_job_while_the_event_loop_is_blocked(redis: RedisConfig) -> None:
    jobs = JobsConfig(lease_s=0.6, heartbeat_s=0.1)
    store, heartbeat = Connector(redis, jobs).store(), Heartbeat(redis, jobs)
    await store.submit("a", spec())
    lease = (await claim(store)).lease
    lost: list[bool] = []
    heartbeat.add(lease, lambda: lost.append(True))
    with blocking_client(redis.url) as client:
        ends: set[float] = set()
        deadline_s = time.monotonic() + BLOCKED_AT_MOST_S
        while len(ends) < RENEWALS:  # the loop is blocked all the while, on purpose
            assert time.monotonic() < deadline_s, "a blocked loop keeps the lease from being renewed"
            end_ms = client.zscore(Keys(redis.namespace).of("leases"), "a")
            assert end_ms is not None
            ends.add(end_ms)
            time.sleep(0.02)  # noqa: ASYNC251
    await append(store, lease, 0)
    heartbeat.remove(lease)
    while not (lapsed := await store.sweep()):  # noqa: ASYNC110 - the store has no event for it
        await asyncio.sleep(0.01)
    assert lapsed == ["a"]
    assert lost == []
    heartbeat.close()
    await store.close()


async def test_heartbeat_tells_once_when_the_job_is_cancelled(redis: RedisConfig) -> None:
    jobs = JobsConfig(lease_s=30, heartbeat_s=0.05)
    store, heartbeat = Connector(redis, jobs).store(), Heartbeat(redis, jobs)
    await store.submit("a", spec())
    lost = asyncio.Event()
    calls: list[int] = []
    loop = asyncio.get_running_loop()

    def on_lost() -> None:
        calls.append(1)
        loop.call_soon_threadsafe(lost.set)

    heartbeat.add((await claim(store)).lease, on_lost)
    await store.cancel("a")
    await asyncio.wait_for(lost.wait(), 60)
    heartbeat.close()
    assert calls == [1]
    await store.close()


async def test_heartbeat_outlives_a_callback_that_raises(redis: RedisConfig, store: JobStore) -> None:
    heartbeat = Heartbeat(redis, JOBS.model_copy(update={"heartbeat_s": 0.05}))
    for name in ("cancelled", "kept"):
        await store.submit(name, spec())
    lost = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_lost() -> None:
        loop.call_soon_threadsafe(lost.set)
        raise RuntimeError("Event loop is closed")

    heartbeat.add((await claim(store)).lease, on_lost)
    heartbeat.add((await claim(store)).lease, lambda: None)
    await store.cancel("cancelled")
    try:
        await asyncio.wait_for(lost.wait(), 60)
        async with async_client(redis.url) as client:
            leases = f"helios:{{{redis.namespace}}}:leases"
            before = await client.zscore(leases, "kept")

            async def renewed() -> bool:
                return bool(await client.zscore(leases, "kept") != before)

            await until(renewed)
    finally:
        heartbeat.close()


async def test_a_job_that_may_be_poison_is_tried_alone(store: JobStore, redis: RedisConfig) -> None:

    async def two(worker: str) -> list[str]:
        claims = [await store.claim("m", worker, uuid4().hex) for _ in range(2)]
        return [claimed.job.id for claimed in claims if claimed is not None]

    for job_id in ("poison", "neighbour", "other"):
        await store.submit(job_id, spec(chunks=9))
    for number in range(2):  # a worker of two slots that dies with both
        assert await two(f"w{number}") == ["poison", "neighbour"]
        assert sorted(await let_lapse(store, redis)) == ["neighbour", "poison"]
    busy = await store.claim("m", "busy", "n")
    assert busy is not None
    assert busy.job.id == "poison"
    assert await store.claim("m", "busy", "n2") is None  # nothing beside it
    other = await store.claim("m", "free", "n3")
    assert other is not None
    assert other.job.id == "neighbour"
    assert await store.claim("m", "free", "n4") is None
    await append(store, other.lease, 0)  # it was not the poison
    last = await store.claim("m", "free", "n5")
    assert last is not None
    assert last.job.id == "other"
