"""The life of a job in the store."""

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from helios_engine.prompts import ScheduledPrompt
from helios_services.config import JobsConfig, RedisConfig
from helios_services.jobs.connector import Connector
from helios_services.jobs.errors import (
    ChunkGone,
    IdempotencyConflict,
    InvalidCursor,
    InvalidTransition,
    JobNotFound,
    QueueFull,
)
from helios_services.jobs.records import JobFailure, Priority
from helios_services.jobs.state import JobState
from helios_services.jobs.store import JobStore
from services.jobs.conftest import JOBS, append, claim, record, spec
from support.redis_clients import async_client


async def test_a_job_from_submission_to_success(store: JobStore) -> None:
    queued = await store.submit("a", spec())
    assert (queued.state, queued.chunks_done, queued.started_s) == (JobState.QUEUED, 0, None)
    claimed = await claim(store)
    assert (claimed.job.state, claimed.job.attempts) == (JobState.RUNNING, 1)
    assert (claimed.checkpoint, dict(claimed.prompt_embeds)) == (None, {})
    await store.save_prompt_embeds(claimed.lease, "key", b"embedding", keep=())
    for index in range(2):
        await append(store, claimed.lease, index)
    assert [chunk.index for chunk in await store.chunk_records(await store.get("a"))] == [0, 1]
    assert [chunk.index for chunk in await store.chunk_records(await store.get("a"), 1)] == [1]
    assert (await store.init_segment("a"), await store.fragment("a", 1)) == (b"init", b"f1")
    await store.begin_publish(claimed.lease)
    ended = await store.succeed(claimed.lease, artifact="a.mp4", video_bytes=7)
    assert (ended.state, ended.artifact, ended.video_bytes) == (JobState.SUCCEEDED, "a.mp4", 7)
    assert ended.created_s <= (ended.started_s or 0) <= (ended.ended_s or 0)
    assert ended.revision > queued.revision
    assert await store.claim("m", "worker", "n") is None


async def test_chunk_records_come_back_as_they_went_in(store: JobStore) -> None:
    await store.submit("a", spec())
    await append(store, (await claim(store)).lease, 0)
    (stored,) = await store.chunk_records(await store.get("a"))
    assert stored.ready_s > 1e9
    assert stored == replace(record(0), ready_s=stored.ready_s)


async def test_order_is_priority_then_submission_and_release_keeps_the_place(store: JobStore) -> None:
    for name, priority in [("b1", Priority.BATCH), ("n1", Priority.NORMAL), ("n2", Priority.NORMAL)]:
        await store.submit(name, spec(priority=priority))
    await store.submit("i1", spec(priority=Priority.INTERACTIVE))
    first = await claim(store)
    assert first.job.id == "i1"
    second = await claim(store)
    assert second.job.id == "n1"
    await store.release(second.lease)
    assert (await store.get("n1")).attempts == 0
    assert [(await claim(store)).job.id for _ in range(3)] == ["n1", "n2", "b1"]


async def test_models_have_queues_of_their_own(store: JobStore) -> None:
    await store.submit("a", spec())
    assert await store.claim("other", "worker", "n") is None
    assert await store.depths("m") == {Priority.INTERACTIVE: 0, Priority.NORMAL: 1, Priority.BATCH: 0}
    assert sum((await store.depths("other")).values()) == 0


async def test_a_full_queue_refuses_and_takes_again_when_there_is_room(redis: RedisConfig) -> None:
    store = Connector(redis, JobsConfig(max_queued=2)).store()
    await store.submit("a", spec())
    await store.submit("b", spec(priority=Priority.BATCH))
    with pytest.raises(QueueFull, match="2 jobs are waiting") as caught:
        await store.submit("c", spec())
    assert (caught.value.retry_after_s or 0) > 0
    await claim(store)
    assert (await store.submit("c", spec())).state is JobState.QUEUED
    await store.close()


async def test_one_idempotency_key_a_hundred_times_at_once_is_one_job(store: JobStore) -> None:
    jobs = await asyncio.gather(*(store.submit(uuid4().hex, spec(), idempotency_key="k") for _ in range(100)))
    assert len({job.id for job in jobs}) == 1
    assert len((await store.page(limit=10)).jobs) == 1
    with pytest.raises(IdempotencyConflict, match="'k'"):
        await store.submit("other", spec(chunks=3), idempotency_key="k")
    claimed = await claim(store)
    await store.fail(claimed.lease, JobFailure(reason="R", message="m"))
    assert (await store.submit("again", spec(), idempotency_key="k")).id == claimed.job.id


async def test_cancel_in_every_state(store: JobStore) -> None:
    for name in ("queued", "running", "publishing"):
        await store.submit(name, spec(chunks=1))
    assert (await store.cancel("queued")).state is JobState.CANCELLED
    running, publishing = await claim(store), await claim(store)
    await append(store, publishing.lease, 0)
    await store.begin_publish(publishing.lease)
    for name in ("running", "publishing"):
        assert (await store.cancel(name)).state is JobState.CANCELLED
        revision = (await store.get(name)).revision
        assert (await store.cancel(name)).revision == revision  # again: nothing happens
    assert running.job.id == "running"
    assert await store.claim("m", "worker", "n") is None
    await store.submit("done", spec(chunks=1))
    done = await claim(store)
    await append(store, done.lease, 0)
    await store.begin_publish(done.lease)
    await store.succeed(done.lease, artifact="x", video_bytes=1)
    with pytest.raises(InvalidTransition) as caught:
        await store.cancel("done")
    assert caught.value.state == "succeeded"
    with pytest.raises(JobNotFound):
        await store.cancel("unknown")


async def test_listing_pages_newest_first_with_filters(store: JobStore) -> None:
    for number in range(7):
        await store.submit(f"j{number}", spec())
    for number in (1, 4):
        await store.cancel(f"j{number}")
    first = await store.page(limit=3)
    assert [job.id for job in first.jobs] == ["j6", "j5", "j4"]
    await store.submit("later", spec())  # does not shift the pages
    second = await store.page(limit=3, cursor=first.next_cursor)
    third = await store.page(limit=3, cursor=second.next_cursor)
    assert [job.id for job in second.jobs + third.jobs] == ["j3", "j2", "j1", "j0"]
    assert third.next_cursor == ""
    cancelled = await store.page(limit=1, states={JobState.CANCELLED})
    assert [job.id for job in cancelled.jobs] == ["j4"]
    rest = await store.page(limit=5, states={JobState.CANCELLED}, cursor=cancelled.next_cursor)
    assert ([job.id for job in rest.jobs], rest.next_cursor) == (["j1"], "")
    assert (await store.page(limit=5, model="other")).jobs == []
    with pytest.raises(InvalidCursor, match="cursor: 'x'"):
        await store.page(limit=5, cursor="x")
    for others in ({"states": {JobState.CANCELLED}}, {"model": "m"}, {"tenant": ""}, {"dead_letters": True}):
        with pytest.raises(InvalidCursor):
            await store.page(limit=3, cursor=first.next_cursor, **others)


async def test_a_record_that_vanished_does_not_hold_up_the_queue(store: JobStore, redis: RedisConfig) -> None:
    for name in ("gone", "a"):
        await store.submit(name, spec())
    async with async_client(redis.url) as client:
        await client.delete(f"helios:{{{redis.namespace}}}:job:gone")
    assert (await claim(store)).job.id == "a"
    assert sum((await store.depths("m")).values()) == 0


async def test_an_ended_job_leaves_nothing_without_expiry(store: JobStore, redis: RedisConfig) -> None:
    await store.submit("a", spec(), idempotency_key="k")
    claimed = await claim(store)
    await store.save_prompt_embeds(claimed.lease, "key", b"embedding", keep=())
    await store.update_prompt("a", ScheduledPrompt(chunk_index=0, prompt="a sea"), "n")
    for index in range(2):
        await append(store, claimed.lease, index)
    async with async_client(redis.url) as client:
        root = f"helios:{{{redis.namespace}}}:"
        live = {key async for key in client.scan_iter(root + "*") if await client.pttl(key) == -1}
        assert (root + "fragment:a:0").encode() in live  # a live job's chunks do not expire
        await store.begin_publish(claimed.lease)
        await store.succeed(claimed.lease, artifact="a.mp4", video_bytes=7)
        left = {key.decode() async for key in client.scan_iter(root + "*") if await client.pttl(key) == -1}
        listed = {"index", "tenant:", "storage:", "kept:", "expiring"}  # which it leaves when its record expires
        made = {"output:", "output_until:", "output_expiring"}  # with what it has made
        assert left == {root + name for name in {"seq", "ended", "layout", "cursor_key", *listed, *made}}
        assert not await client.exists(root + "embeds:a")
        names = ("job:a", "idempotency:k", "prompts:a", "chunks:a", "fragment:a:1", "checkpoint:a")
        kept = {name: await client.pttl(root + name) for name in names}
        for name, ttl_s in zip(kept, [JOBS.job_ttl_s] * 3 + [JOBS.chunk_ttl_s] * 3, strict=True):
            assert 0.9 * ttl_s * 1000 < kept[name] <= ttl_s * 1000, name
        await client.delete(root + "fragment:a:0")
        await client.zadd(root + "kept:", {":a": 1})  # as if its time were over
        await client.zadd(root + "expiring", {"": 1})
        await client.zadd(root + "output_until:", {"a": 1})
        await client.zadd(root + "output_expiring", {"": 1})
        await store.sweep()
        left = {key.decode() async for key in client.scan_iter(root + "*") if await client.pttl(key) == -1}
        assert left == {root + name for name in ("seq", "ended", "layout", "cursor_key")}
    with pytest.raises(JobNotFound):
        await store.get("a")
    with pytest.raises(ChunkGone):
        await store.fragment("a", 0)
    await store.submit("b", spec())
    assert [job.id for job in (await store.page(limit=5)).jobs] == ["b"]
