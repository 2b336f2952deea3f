"""Jobs of the release before lanes and accounts, and processes of that release that still run."""

from dataclasses import replace
from typing import Any

import pytest

from helios_services.config import RedisConfig
from helios_services.jobs.codec import LATER_FIELDS, spec_to_json
from helios_services.jobs.keys import Keys
from helios_services.jobs.records import Account, Priority
from helios_services.jobs.state import JobState
from helios_services.jobs.store import JobStore
from services.jobs.conftest import append, claim, spec
from support.redis_clients import async_client

NEW = (
    "account",
    "weight",
    "chunk_ms",
    "video_key",
    "video_ms",
    "video_limit_ms",
    "deadline_ms",
    "start_by_ms",
    "webhook",
)


async def as_of_old(redis: RedisConfig, job_id: str, priority: str = "normal") -> None:
    """Leaves of a queued job what the release before would have written."""
    root = Keys(redis.namespace)
    async with async_client(redis.url) as client:
        await client.hdel(root.of("job", job_id), *NEW)
        await client.delete(root.of("lane", "m", priority, ""), root.of("lanes", "m", priority))


async def test_jobs_that_an_older_release_has_queued_are_run_in_their_order(
    store: JobStore, redis: RedisConfig
) -> None:
    for job_id in ("a", "b"):
        await store.submit(job_id, spec())
        await as_of_old(redis, job_id)
    await store.submit("urgent", spec(priority=Priority.INTERACTIVE))
    await as_of_old(redis, "urgent", "interactive")
    await store.submit("new", spec(), account=Account(id="x"))
    claimed = [await claim(store) for _ in range(4)]
    assert claimed[0].job.id == "urgent"
    order = [each.job.id for each in claimed]
    assert order.index("a") < order.index("b")
    for index in range(2):
        await store.begin_chunk(claimed[order.index("a")].lease, index, 0)
        await append(store, claimed[order.index("a")].lease, index)
    await store.begin_publish(claimed[order.index("a")].lease)
    done = await store.succeed(claimed[order.index("a")].lease, artifact="x", video_bytes=1)
    assert done.state is JobState.SUCCEEDED


async def test_what_an_older_process_has_taken_out_of_the_queue_is_not_claimed(
    store: JobStore, redis: RedisConfig
) -> None:
    root = Keys(redis.namespace)
    await store.submit("a", spec())
    await store.submit("b", spec())
    async with async_client(redis.url) as client:  # its claim knows of no lane
        await client.zrem(root.of("queue", "m", "normal"), "a")
        await client.hset(root.of("job", "a"), mapping={"state": "running", "token": 1})
        await client.zadd(root.of("leases"), {"a": 2**52})
    assert (await claim(store)).job.id == "b"
    assert await store.claim("m", "w", "n") is None
    async with async_client(redis.url) as client:
        assert await client.hget(root.of("job", "a"), "token") == b"1"


async def test_a_job_that_an_older_process_has_ended_takes_no_place_from_its_account(
    store: JobStore, redis: RedisConfig
) -> None:
    root, account = Keys(redis.namespace), Account(id="x", max_running=1)
    for job_id in ("a", "b"):
        await store.submit(job_id, spec(), account=account)
    await claim(store)
    async with async_client(redis.url) as client:  # its cancellation knows of no set of running jobs
        await client.hset(root.of("job", "a"), "state", "cancelled")
        await client.zrem(root.of("leases"), "a")
    assert (await claim(store)).job.id == "b"


def test_a_request_that_says_nothing_new_has_the_text_of_old() -> None:
    assert not any(name in spec_to_json(spec()) for name in LATER_FIELDS)


@pytest.mark.parametrize(
    ("name", "value"), [("timeout_s", 5.0), ("queue_timeout_s", 5.0), ("webhook_url", "https://x")]
)
def test_what_is_new_is_part_of_the_request(name: str, value: Any) -> None:
    assert name in spec_to_json(replace(spec(), **{name: value}))


async def test_fields_of_a_newer_release_do_not_matter(store: JobStore, redis: RedisConfig) -> None:
    await store.submit("a", spec())
    key = Keys(redis.namespace).of("job", "a")
    async with async_client(redis.url) as client:
        text = spec_to_json(spec())
        await client.hset(key, "spec", text.replace('{"', '{"from_the_future":1,"', 1))
    assert (await store.get("a")).spec == spec()
