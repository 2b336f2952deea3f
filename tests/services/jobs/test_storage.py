"""What records take of the store: bounded for a job and for an account, counted to the byte, and let go in time."""

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from helios_engine.prompts import ScheduledPrompt
from helios_services.config import ConfigError, JobsConfig, RedisConfig, load_config
from helios_services.jobs.connector import Connector
from helios_services.jobs.errors import JobNotFound, JobTooLarge, PromptsFull, QuotaExceeded
from helios_services.jobs.keys import Keys
from helios_services.jobs.records import Account, JobFailure, JobSpec
from helios_services.jobs.state import JobState
from helios_services.jobs.store import JobStore
from services.jobs.conftest import JOBS, append, claim, spec
from support.redis_clients import async_client

A, B = Account(id="a"), Account(id="b")
OF_A_RECORD = ("job", "prompts", "idempotency")
"""Keys that are counted, beside the entries in lists."""


def long(characters: int, letter: str = "x", **fields: Any) -> JobSpec:
    """A job with a long prompt."""
    return replace(spec(prompt=letter * characters), **fields)


def limited(redis: RedisConfig, **limits: int) -> JobStore:
    """A store with other limits."""
    return Connector(redis, JOBS.model_copy(update=limits)).store()


async def stored(redis: RedisConfig, account: str) -> int:
    """Bytes that are counted for an account."""
    async with async_client(redis.url) as client:
        return int(await client.hget(Keys(redis.namespace).of("storage", account), ":total") or 0)


async def taken(redis: RedisConfig) -> int:
    """Bytes that the keys of all records take in Redis, and the lists' entries."""
    async with async_client(redis.url) as client:
        root = Keys(redis.namespace).root
        keys = [key async for key in client.scan_iter(f"{root}*")]
        chunk = ("chunks", "fragment", "init", "checkpoint", "embeds")
        names = {key: key.decode().removeprefix(root).partition(":")[0] for key in keys}
        return sum([await client.memory_usage(key, samples=0) or 0 for key, name in names.items() if name not in chunk])


async def test_a_request_of_more_bytes_than_allowed_is_refused_as_it_is_stored(redis: RedisConfig) -> None:
    store = limited(redis, max_job_bytes=2000)
    await store.submit("a", long(1500))
    for letter in "é\n":  # two bytes each in UTF-8, and as an escape in JSON
        with pytest.raises(JobTooLarge) as caught:
            await store.submit("b", long(1500, letter))
        assert caught.value.limit_bytes == 2000
        assert 3000 < caught.value.size_bytes < 3500
    await store.submit("c", long(700, "é"))
    async with async_client(redis.url) as client:
        assert "é".encode() * 700 in (await client.hgetall(Keys(redis.namespace).of("job", "c")))[b"spec"]
    assert (await store.get("c")).spec == long(700, "é")
    await store.close()


async def test_what_is_counted_is_at_least_what_redis_takes(store: JobStore, redis: RedisConfig) -> None:
    """So the sum of all accounts' limits bounds what clients can fill the store with."""
    labels = {f"label {number}": "v" * 100 for number in range(10)}
    for number in range(20):
        job = long(number * 500, "é", labels=labels, tenant="t")
        key = f"t:{'k' * 100}{number}"
        job_id = (await store.submit(uuid4().hex, job, account=A, idempotency_key=key, trace="t" * 55)).id
        for update in range(number % 4):
            await store.update_prompt(job_id, ScheduledPrompt(chunk_index=0, prompt="é" * 200), str(update))
        if number % 2:
            await store.cancel(job_id)
    assert await taken(redis) <= await stored(redis, "a") <= 3 * await taken(redis)


async def test_submissions_and_cancellations_do_not_fill_the_store(redis: RedisConfig) -> None:
    """The attack: a large job, cancelled at once, as often as it takes."""
    store = limited(redis, max_account_bytes=400_000)
    sizes = []
    for _ in range(150):
        job_id = (await store.submit(uuid4().hex, long(60_000), account=A)).id
        await store.cancel(job_id)
        sizes.append(await stored(redis, "a"))
    assert max(sizes) <= 400_000
    assert await taken(redis) < 400_000
    job = await store.get(job_id)
    assert (job.state, job.spec.params["prompt"], job.spec.params["fps"]) == (JobState.CANCELLED, "", 24)
    await store.close()


async def test_an_account_that_is_full_is_refused_and_nobody_else(redis: RedisConfig) -> None:
    store = limited(redis, max_account_bytes=262_144)
    for number in range(4):
        await store.submit(f"a{number}", long(58_000), account=A)
    with pytest.raises(QuotaExceeded) as caught:
        await store.submit("a4", long(58_000), account=A)
    assert caught.value.limit == "stored_bytes"
    assert caught.value.retry_after_s
    assert "262,144" in str(caught.value)
    await store.submit("b", long(58_000), account=B)
    await store.cancel("a0")
    await store.submit("a4", long(58_000), account=A)
    await store.close()


async def test_records_of_ended_jobs_make_room_the_oldest_first_and_dead_letters_stay(redis: RedisConfig) -> None:
    store = limited(redis, max_account_bytes=270_000)
    for name in ("dead", "failed", "first", "second"):
        await store.submit(name, long(30_000), account=A, idempotency_key=name)
        claimed = await claim(store)
        if name in ("dead", "failed"):
            reason = "GENERATION_FAILED" if name == "dead" else "INVALID_REQUEST"
            await store.fail(claimed.lease, JobFailure(reason=reason, message="m"))
            continue
        for index in range(2):
            await append(store, claimed.lease, index)
        await store.begin_publish(claimed.lease)
        await store.succeed(claimed.lease, artifact="x", video_bytes=1)
    for number in range(6):
        await store.submit(f"new{number}", long(30_000), account=A)
    for name in ("failed", "first", "second"):
        with pytest.raises(JobNotFound):
            await store.get(name)
    assert {job.id for job in (await store.page(limit=99)).jobs} >= {"dead"}
    assert (await store.requeue("dead", "n")).spec == long(30_000)
    again = await store.submit("again", long(30_000), account=B, idempotency_key="first")
    assert again.id == "again"  # the key went with its record
    await store.close()


async def test_prompt_updates_are_bounded_by_bytes_and_counted(redis: RedisConfig) -> None:
    store = limited(redis, max_prompt_update_bytes=5000, max_account_bytes=263_000)
    await store.submit("a", spec(), account=A)
    before = await stored(redis, "a")
    update = ScheduledPrompt(chunk_index=0, prompt="é" * 1000)
    for nonce in ("n1", "n2", "n2"):
        await store.update_prompt("a", update, nonce)
    assert 4000 < await stored(redis, "a") - before < 4400
    with pytest.raises(PromptsFull, match="5,000 bytes"):
        await store.update_prompt("a", update, "n3")
    assert len((await store.get("a")).prompt_updates) == 2
    await store.cancel("a")
    assert (await store.get("a")).prompt_updates == ()
    assert await stored(redis, "a") <= before
    for name in ("b", "c", "d", "e"):
        await store.submit(name, long(60_000), account=A)
    for name in ("b", "c"):
        await store.update_prompt(name, update, name)
    with pytest.raises(QuotaExceeded, match="stored_bytes"):
        await store.update_prompt("d", update, "n")
    await store.close()


async def test_the_state_of_the_job_that_is_continued_counts_until_there_is_an_own_one(redis: RedisConfig) -> None:
    store = limited(redis, max_account_bytes=270_000)
    await store.submit("a", spec(1), account=A)
    first = await claim(store)
    await append(store, first.lease, 0)
    async with async_client(redis.url) as client:  # a state of real size
        await client.set(Keys(redis.namespace).of("checkpoint", "a"), bytes(100_000))
    await store.begin_publish(first.lease)
    await store.succeed(first.lease, artifact="x", video_bytes=1)
    before = await stored(redis, "a")
    for name in ("b", "c"):
        await store.submit(name, spec(1, prompt=name), account=A)
    without = await stored(redis, "a")
    for name in ("d", "e"):
        await store.submit(name, replace(spec(1), continue_from="a"), account=A)
    assert await stored(redis, "a") - without > 200_000
    with pytest.raises(QuotaExceeded):
        await store.submit("f", replace(spec(1), continue_from="a"), account=A)
    for name in ("b", "c", "d"):
        claimed = await claim(store)
        assert claimed.job.id == name
    await append(store, claimed.lease, 0)
    await store.cancel("e")
    assert await stored(redis, "a") - before < 30_000
    await store.close()


async def test_a_record_whose_time_is_over_leaves_nothing(store: JobStore, redis: RedisConfig) -> None:
    await store.submit("a", spec(), account=A, idempotency_key="k")
    await store.cancel("a")
    root = Keys(redis.namespace)
    async with async_client(redis.url) as client:
        await client.delete(root.of("job", "a"), root.of("idempotency", "k"))  # Redis has expired them
        await client.zadd(root.of("kept", "a"), {":a": 1})
        await client.zadd(root.of("expiring"), {"a": 1})
        await store.sweep()
        left = {key.decode().removeprefix(root.root) async for key in client.scan_iter(root.root + "*")}
    assert left <= {"seq", "ended", "layout", "cursor_key", "share:m", "limits"}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"HELIOS_JOBS__MAX_JOB_BYTES": "2000000"}, "max_job_bytes"),
        ({"HELIOS_JOBS__MAX_PROMPT_UPDATE_BYTES": "2000000"}, "max_prompt_update_bytes"),
        ({"HELIOS_JOBS__MAX_ACCOUNT_BYTES": "100000"}, "max_account_bytes"),
    ],
)
def test_limits_that_no_job_could_keep_are_refused(values: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_config(environ=values)


def test_a_job_at_its_limits_fits_into_what_clients_take() -> None:
    """The largest request and all of its updates, as a message, whatever is configured."""
    fields = JobsConfig.model_fields
    limits = [
        getattr(meta, "le", 0)
        for name in ("max_job_bytes", "max_prompt_update_bytes")
        for meta in fields[name].metadata
    ]
    assert 0 < sum(filter(None, limits)) <= 2 * 1024**2  # gRPC's clients take 4 MiB
