"""Limits of an account: exact over all gateways, told by name, with the time after which to come back."""

import asyncio
from contextlib import suppress
from uuid import uuid4

import pytest

from helios_services.config import RedisConfig
from helios_services.jobs.errors import QueueFull, QuotaExceeded
from helios_services.jobs.keys import Keys
from helios_services.jobs.records import Account, Verdict
from helios_services.jobs.state import JobState
from helios_services.jobs.store import JobStore
from services.jobs.conftest import JOBS, append, claim, spec
from support.redis_clients import async_client

CHUNK_S = 33 / 24


async def submit(store: JobStore, account: Account, chunks: int = 2) -> str:
    return (await store.submit(uuid4().hex, spec(chunks), account=account)).id


async def refused(store: JobStore, account: Account, chunks: int = 2) -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as info:
        await submit(store, account, chunks)
    return info.value


async def test_queued_jobs(store: JobStore) -> None:
    account = Account(id="a", max_queued=3)
    outcomes = await asyncio.gather(*(submit(store, account) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(outcome, str) for outcome in outcomes) == 3
    assert (await refused(store, account)).limit == "max_queued"
    await submit(store, Account(id="b", max_queued=3))  # another account has its own
    await store.cancel(next(outcome for outcome in outcomes if isinstance(outcome, str)))
    await submit(store, account)


async def test_one_account_fills_the_queue_for_itself_only(store: JobStore) -> None:
    loud = Account(id="loud")
    for _ in range(JOBS.max_queued):
        await submit(store, loud)
    for name in ("quiet", "new"):
        for _ in range(JOBS.max_queued // 10):
            await submit(store, Account(id=name))
        for account in (loud, Account(id=name)):
            with pytest.raises(QueueFull):
                await submit(store, account)
    for number in range(JOBS.max_queued - 2 * (JOBS.max_queued // 10)):
        await submit(store, Account(id=f"other{number}"))
    with pytest.raises(QueueFull, match="100 jobs are waiting"):  # bounded even so
        await submit(store, Account(id="last"))


async def test_running_jobs_wait_and_hold_nobody_up(store: JobStore) -> None:
    account = Account(id="a", max_running=1)
    first, second = [await submit(store, account) for _ in range(2)]
    third = await submit(store, Account(id="b"))
    held = [await claim(store), await claim(store)]
    assert {each.job.id for each in held} == {first, third}
    assert await store.claim("m", "w", "n") is None
    await store.cancel(first)
    assert (await claim(store)).job.id == second


async def test_submissions_a_minute(store: JobStore, redis: RedisConfig) -> None:
    account, key = Account(id="a", submits_per_minute=4), Keys(redis.namespace).of("rate", "a")
    async with async_client(redis.url) as client:

        async def now_ms() -> float:
            seconds, microseconds = await client.time()
            return float(seconds * 1000 + microseconds / 1000)

        began_ms = await now_ms()
        for _ in range(4):
            await submit(store, account)
        used_up_ms = float(await client.get(key) or 0)  # when all four may be made again
        assert began_ms - 1 <= used_up_ms - 60_000 <= await now_ms()
        assert 0 < await client.pttl(key) <= 60_000
        later_ms = used_up_ms + 3_600_000  # as if the four had been made in an hour: no test is that slow
        await client.set(key, later_ms)
        asked_ms = await now_ms()
        error = await refused(store, account)
        assert error.limit == "submits_per_minute"
        assert error.retry_after_s is not None
        wait_ms = 1000 * error.retry_after_s + 45_000  # the first of the four may be made before that
        assert later_ms - await now_ms() - 1 <= wait_ms <= later_ms - asked_ms + 2
        room_ms = await now_ms() + 45_000  # that quarter goes by
        await client.set(key, room_ms)
        await submit(store, account)
        used_up_ms = float(await client.get(key) or 0)
        assert used_up_ms >= room_ms + 15_000
        with suppress(QuotaExceeded):  # a quarter of a minute too early
            await submit(store, account)
            assert await now_ms() >= used_up_ms - 45_000 - 1, "not refused"  # but for a machine that slow


async def test_a_repetition_of_a_submission_is_not_counted(store: JobStore) -> None:
    account = Account(id="a", submits_per_minute=1, max_queued=1, video_minutes_per_day=2 * CHUNK_S / 60)
    for _ in range(3):
        await store.submit(uuid4().hex, spec(), account=account, idempotency_key="k")


async def test_video_of_a_day_is_taken_at_once_and_what_was_not_made_is_given_back(store: JobStore) -> None:
    account = Account(id="a", video_minutes_per_day=10 * CHUNK_S / 60)
    job_id = await submit(store, account, 8)
    error = await refused(store, account, 3)
    assert error.limit == "video_minutes_per_day"
    assert error.retry_after_s is not None
    assert 0 < error.retry_after_s <= 86_400
    await append(store, (await claim(store)).lease, 0)
    await store.cancel(job_id)  # 7 of its 8 chunks were not made
    await submit(store, account, 9)
    await refused(store, account, 1)


async def test_an_open_ended_job_stops_when_the_days_video_is_used_up(store: JobStore) -> None:
    account = Account(id="a", video_minutes_per_day=2 * CHUNK_S / 60)
    job_id = await submit(store, account, 0)
    lease = (await claim(store)).lease
    for index in range(2):
        for _ in range(2):  # also when the answer was lost
            assert (await store.begin_chunk(lease, index, 0)).verdict is Verdict.GO
        await append(store, lease, index)
    assert (await store.begin_chunk(lease, 2, 0)).verdict is Verdict.STOPPED
    await store.begin_publish(lease)
    assert (await store.succeed(lease, artifact="", video_bytes=0)).state is JobState.SUCCEEDED
    assert (await store.get(job_id)).chunks_total == 2
    await refused(store, account, 1)


async def test_less_than_one_submission_a_minute(store: JobStore, redis: RedisConfig) -> None:
    account = Account(id="a", submits_per_minute=0.05)
    await submit(store, account)
    error = await refused(store, account)
    assert error.retry_after_s is not None
    assert 1000 < error.retry_after_s <= 1200


async def test_a_job_that_alone_is_more_than_a_day_may_have_is_not_told_to_come_back(store: JobStore) -> None:
    error = await refused(store, Account(id="a", video_minutes_per_day=2 * CHUNK_S / 60), 3)
    assert (error.limit, error.retry_after_s) == ("video_minutes_per_day", None)


async def test_a_limit_that_was_raised_holds_for_jobs_that_wait(store: JobStore) -> None:
    for _ in range(3):
        await submit(store, Account(id="a", max_running=1))
    await claim(store)
    assert await store.claim("m", "w", "n1") is None
    await submit(store, Account(id="a", max_running=3))
    for _ in range(2):
        await claim(store)
    assert await store.claim("m", "w", "n2") is None


async def test_jobs_that_may_not_run_are_no_work_for_replicas(store: JobStore) -> None:
    for _ in range(5):
        await submit(store, Account(id="a", max_running=2))
    await claim(store)
    work = await store.work("m")
    assert (work.running_jobs, work.queued_jobs, work.queued_chunks) == (1, 1, 2)
