"""What jobs have made takes a bounded part of the store: counted for each account, refused by name, let go in time."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from helios_services.config import RedisConfig
from helios_services.jobs.connector import Connector
from helios_services.jobs.embedded import EmbeddedRedis
from helios_services.jobs.errors import ChunkGone, QuotaExceeded
from helios_services.jobs.keys import Keys
from helios_services.jobs.records import Account, Claim, JobFailure
from helios_services.jobs.state import JobState
from helios_services.jobs.store import JobStore
from services.jobs.conftest import JOBS, claim, record, spec
from support.redis_clients import async_client

A, B = Account(id="a"), Account(id="b")
MADE = ("chunks", "fragment", "init", "checkpoint", "embeds")
LIMIT = 100_000
ROUNDED_UP = 1.25
"""What Redis' allocator makes of a size, at most."""


@pytest.fixture
async def store(redis: RedisConfig) -> AsyncIterator[JobStore]:
    store = Connector(
        redis, JOBS.model_copy(update={"max_account_output_bytes": LIMIT, "live_window_chunks": 3})
    ).store()
    yield store
    await store.close()


@pytest.fixture
async def client(redis: RedisConfig) -> AsyncIterator[Any]:
    async with async_client(redis.url) as client:
        yield client


async def begun(store: JobStore, job_id: str, account: Account = A, chunks: int = 9) -> Claim:
    await store.submit(job_id, spec(chunks), account=account)
    claimed = await claim(store)
    assert claimed.job.id == job_id
    return claimed


async def make(store: JobStore, claimed: Claim, index: int, size: int = 10_000, state: int = 1000) -> None:
    await store.append_chunk(
        claimed.lease, record(index), bytes(size), init_segment=bytes(700), checkpoint=bytes(state)
    )


async def counted(client: Any, redis: RedisConfig, account: str = "a") -> int:
    return int(await client.hget(Keys(redis.namespace).of("output", account), ":total") or 0)


async def taken(client: Any, redis: RedisConfig) -> int:
    """Bytes that Redis has for what jobs have made."""
    root = Keys(redis.namespace).root
    keys = [key async for key in client.scan_iter(f"{root}*")]
    mine = [key for key in keys if key.decode().removeprefix(root).partition(":")[0] in MADE]
    return sum([await client.memory_usage(key, samples=0) or 0 for key in mine])


async def end(store: JobStore, claimed: Claim) -> None:
    await store.begin_publish(claimed.lease)
    await store.succeed(claimed.lease, artifact="x", video_bytes=1)


async def test_one_key_cannot_fill_the_store(store: JobStore, client: Any, redis: RedisConfig) -> None:
    """The attack: long jobs, each within its limits, and nothing is ever read or ended."""
    claims = [await begun(store, f"a{number}") for number in range(3)]

    async def attack() -> None:
        for index in range(9):
            for claimed in claims:
                await make(store, claimed, index)

    with pytest.raises(QuotaExceeded) as caught:
        await attack()
    assert (caught.value.limit, "100,000" in str(caught.value)) == ("output_bytes", True)
    assert await counted(client, redis) <= LIMIT
    assert await taken(client, redis) <= ROUNDED_UP * LIMIT
    with pytest.raises(QuotaExceeded):
        await store.save_prompt_embeds(claims[0].lease, "k", bytes(20_000), keep=())
    other = await begun(store, "b", B)
    await make(store, other, 0)


async def test_submissions_of_an_account_that_is_full_are_refused_by_name(
    store: JobStore, client: Any, redis: RedisConfig
) -> None:
    claimed = await begun(store, "a")
    await make(store, claimed, 0, size=LIMIT - 10_000 - 2000, state=1000)
    await store.save_prompt_embeds(claimed.lease, "k", bytes(LIMIT - await counted(client, redis)), keep=())
    with pytest.raises(QuotaExceeded) as caught:
        await store.submit("more", spec(), account=A)
    assert (caught.value.limit, caught.value.retry_after_s) == ("output_bytes", 5.0)
    await store.submit("b", spec(), account=B)
    await store.cancel("a")
    await store.submit("more", spec(), account=A)


async def test_what_is_counted_is_what_redis_has(store: JobStore, client: Any, redis: RedisConfig) -> None:
    async def compare() -> None:
        there = await taken(client, redis)
        assert there / ROUNDED_UP <= await counted(client, redis) <= 1.6 * there

    for job_id, chunks in (("whole", 3), ("open", 0), ("failed", 4), ("dead", 5)):
        claimed = await begun(store, job_id, chunks=chunks)
        await store.save_prompt_embeds(claimed.lease, "k", bytes(3000), keep=())
        await store.save_prompt_embeds(claimed.lease, "l", bytes(2000), keep=("k",))
        await store.save_prompt_embeds(claimed.lease, "k", bytes(1000), keep=())
        for index in range(chunks or 6):
            await make(store, claimed, index, size=1000 + index, state=2000)
        await compare()
        match job_id:
            case "whole":
                await end(store, claimed)
            case "open":
                await store.cancel("open")
            case reason:
                reason = "GENERATION_FAILED" if reason == "dead" else "INVALID_REQUEST"
                await store.fail(claimed.lease, JobFailure(reason=reason, message="m"))
    await compare()
    await store.purge("dead", "n")
    await compare()
    keys = Keys(redis.namespace)
    for job_id in await client.zrange(keys.of("output_until", "a"), 0, -1):
        await client.zadd(keys.of("output_until", "a"), {job_id: 1})
    await client.zadd(keys.of("output_expiring"), {"a": 1})
    await store.sweep()
    assert await counted(client, redis) == 0
    assert not await client.exists(keys.of("output_until", "a"), keys.of("output_expiring"), keys.of("output", "a"))


async def test_what_ended_jobs_have_made_goes_first_and_dead_letters_stay(
    store: JobStore, client: Any, redis: RedisConfig
) -> None:
    dead = await begun(store, "dead")
    await make(store, dead, 0)
    await store.fail(dead.lease, JobFailure(reason="WORKER_LOST", message="m"))
    for number in range(3):
        ended = await begun(store, f"ended{number}", chunks=2)
        for index in range(2):
            await make(store, ended, index)
        await end(store, ended)
    running = await begun(store, "running")
    for index in range(6):
        await make(store, running, index)
    assert await counted(client, redis) <= LIMIT
    with pytest.raises(ChunkGone):
        await store.fragment("ended0", 0)
    assert len(await store.fragment("ended2", 1)) == 10_000
    assert (await store.get("ended0")).state is JobState.SUCCEEDED
    for index in (6, 7):
        await make(store, running, index)
    with pytest.raises(QuotaExceeded):
        await make(store, running, 8)
    assert (await store.requeue("dead", "n")).chunks_done == 1
    assert len(await store.fragment("dead", 0)) == 10_000


async def test_jobs_that_an_older_release_has_begun_are_counted_from_their_next_chunk(
    store: JobStore, client: Any, redis: RedisConfig
) -> None:
    claimed = await begun(store, "a")
    for index in range(3):
        await make(store, claimed, index)
    before = await counted(client, redis)
    await client.delete(Keys(redis.namespace).of("output", "a"))
    await make(store, claimed, 3)
    assert await counted(client, redis) == before + 10_512


async def test_no_job_is_taken_up_when_redis_memory_is_short_and_what_runs_ends(tmp_path: Path) -> None:
    server = EmbeddedRedis.start(tmp_path)
    store = Connector(RedisConfig(url=server.url, socket_timeout_s=30.0), JOBS).store()
    async with async_client(server.url) as client:
        running = await begun(store, "running", chunks=1)
        await store.submit("waits", replace(spec(), tenant="t"))
        used = (await client.info("memory"))["used_memory"]
        await client.config_set("maxmemory-policy", "noeviction")
        await client.config_set("maxmemory", int(used * 1.1))  # not reached yet
        assert await store.claim("m", "w", uuid4().hex) is None
        await make(store, running, 0)
        await end(store, running)
        await client.config_set("maxmemory", used * 10)
        assert (await claim(store)).job.id == "waits"
    await store.close()
    server.stop()
