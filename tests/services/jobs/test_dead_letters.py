"""Jobs that failed through no fault of their request: kept whole, queued again or given up."""

import asyncio
from dataclasses import replace

import pytest

from helios_services.config import RedisConfig
from helios_services.jobs import scripts
from helios_services.jobs.connector import Connector
from helios_services.jobs.errors import JobNotFound, NotDeadLettered
from helios_services.jobs.records import JobFailure
from helios_services.jobs.state import DEAD_LETTERED, JobState
from helios_services.jobs.store import JobStore
from services.jobs.conftest import JOBS, append, claim, spec
from support.redis_clients import async_client


async def fail(store: JobStore, job_id: str, reason: str, chunks: int = 1) -> None:
    """A job that fails after some chunks."""
    await store.submit(job_id, spec(3), idempotency_key=f"key of {job_id}")
    lease = (await claim(store)).lease
    await store.save_prompt_embeds(lease, "key", b"embedding", keep=())
    for index in range(chunks):
        await append(store, lease, index)
    await store.fail(lease, JobFailure(reason=reason, message="why"))


async def listed(store: JobStore) -> list[str]:
    return [job.id for job in (await store.page(limit=9, dead_letters=True)).jobs]


@pytest.mark.parametrize("reason", [*sorted(DEAD_LETTERED), "INVALID_REQUEST", "MEDIA_GONE"])
async def test_only_the_services_own_failures_are_dead_letters(store: JobStore, reason: str) -> None:
    await fail(store, "a", reason)
    expected = ["a"] if reason in DEAD_LETTERED else []
    assert await listed(store) == expected
    assert await store.dead_letters() == len(expected)
    if not expected:
        with pytest.raises(NotDeadLettered, match="failed"):
            await store.requeue("a", "nonce")


async def test_a_dead_letter_goes_on_where_it_was(store: JobStore, redis: RedisConfig) -> None:
    await fail(store, "a", "GENERATION_FAILED", chunks=2)
    job = await store.requeue("a", "nonce")
    assert (job.state, job.error, job.ended_s, job.chunks_done) == (JobState.QUEUED, None, None, 2)
    assert await listed(store) == []
    async with async_client(redis.url) as client:
        root = f"helios:{{{redis.namespace}}}:"
        names = ("job:a", "checkpoint:a", "embeds:a", "chunks:a", "init:a", "fragment:a:1", "idempotency:key of a")
        assert [await client.pttl(root + name) for name in names] == [-1] * len(names)
    resumed = await claim(store)
    assert (resumed.checkpoint, dict(resumed.prompt_embeds)) == (b"state 2", {"key": b"embedding"})
    await append(store, resumed.lease, 2)
    await store.begin_publish(resumed.lease)
    assert (await store.succeed(resumed.lease, artifact="a.mp4", video_bytes=7)).state is JobState.SUCCEEDED
    with pytest.raises(NotDeadLettered):
        await store.requeue("a", "another nonce")


async def test_it_is_queued_again_once_however_often_it_is_asked_for(store: JobStore) -> None:
    await fail(store, "a", "WORKER_LOST")
    outcomes = await asyncio.gather(
        *(store.requeue("a", f"nonce {number}") for number in range(10)), return_exceptions=True
    )
    assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 1
    await claim(store)
    assert await store.claim("m", "w", "n") is None


async def test_whoever_lost_the_answer_asks_again_and_is_told_the_same(store: JobStore) -> None:
    await fail(store, "a", "WORKER_LOST")
    for _ in range(2):
        assert (await store.requeue("a", "first")).state is JobState.QUEUED
    await store.fail((await claim(store)).lease, JobFailure(reason="WORKER_LOST", message="again"))
    for _ in range(2):
        assert (await store.purge("a", "second")).state is JobState.FAILED


async def test_what_is_given_up_keeps_its_record_only(store: JobStore, redis: RedisConfig) -> None:
    await fail(store, "a", "PUBLISH_FAILED")
    async with async_client(redis.url) as client:
        root = f"helios:{{{redis.namespace}}}:"
        for name in ("checkpoint:a", "embeds:a", "fragment:a:0"):  # kept for as long as the record
            assert await client.pttl(root + name) > 0.9 * JOBS.job_ttl_s * 1000
        await store.purge("a", "nonce")
        assert await client.exists(root + "checkpoint:a", root + "embeds:a") == 0
        assert 0 < await client.pttl(root + "fragment:a:0") <= JOBS.chunk_ttl_s * 1000
    assert (await store.get("a")).state is JobState.FAILED
    assert await listed(store) == []
    for call in (store.purge, store.requeue):
        with pytest.raises(NotDeadLettered):
            await call("a", "another nonce")
        with pytest.raises(JobNotFound):
            await call("unknown", "nonce")


async def test_expired_records_leave_the_list(store: JobStore, redis: RedisConfig) -> None:
    for job_id in ("a", "b"):
        await fail(store, job_id, "WORKER_LOST")
    assert await listed(store) == ["b", "a"]
    async with async_client(redis.url) as client:
        await client.delete(f"helios:{{{redis.namespace}}}:job:a")
    await store.sweep()
    assert (await listed(store), await store.dead_letters()) == (["b"], 1)


async def test_there_is_room_for_so_many_and_the_oldest_goes(
    redis: RedisConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts, "MAX_DEAD_LETTERS", 2)
    scripts.source.cache_clear()
    store = Connector(redis, JOBS).store()
    for job_id in ("a", "b", "c"):
        await fail(store, job_id, "WORKER_LOST")
    scripts.source.cache_clear()
    assert await listed(store) == ["c", "b"]
    async with async_client(redis.url) as client:
        root = f"helios:{{{redis.namespace}}}:"
        assert await client.exists(root + "checkpoint:a", root + "embeds:a") == 0
        assert 0 < await client.pttl(root + "fragment:a:0") <= JOBS.chunk_ttl_s * 1000
    assert (await store.get("a")).state is JobState.FAILED
    assert (await store.get("a")).spec.params["prompt"] == ""  # nobody will run it again
    await store.close()


async def test_one_tenants_dead_letters_push_out_none_of_anothers(
    redis: RedisConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts, "MAX_DEAD_LETTERS", 2)
    scripts.source.cache_clear()
    store = Connector(redis, JOBS).store()
    for job_id, tenant in (("mine", "quiet"), *((f"theirs{number}", "loud") for number in range(5))):
        await store.submit(job_id, replace(spec(), tenant=tenant))
        await store.fail((await claim(store)).lease, JobFailure(reason="WORKER_LOST", message="m"))
    scripts.source.cache_clear()
    assert await listed(store) == ["theirs4", "theirs3", "mine"]
    assert (await store.requeue("mine", "n")).state is JobState.QUEUED
    await store.close()
