"""A store that release 0.1.0 has written, with jobs in every state, and processes of that release that still run.

`written_by_0_1_0.json` is what that release's own code left in Redis. Its tenants are acme (account acme-1) and beta
(beta-1).
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helios_engine.prompts import ScheduledPrompt
from helios_engine.request import GenerationRequest
from helios_services.config import RedisConfig
from helios_services.jobs.codec import LATER_FIELDS, spec_to_json
from helios_services.jobs.connector import Connector
from helios_services.jobs.errors import IdempotencyConflict
from helios_services.jobs.keys import Keys
from helios_services.jobs.records import Account, Claim, Control, Lease, Verdict
from helios_services.jobs.state import JobState
from helios_services.jobs.store import JobStore
from services.jobs.conftest import JOBS, append, let_lapse, spec
from support.redis_clients import async_client

WRITTEN = json.loads((Path(__file__).parent / "written_by_0_1_0.json").read_text())
PROMPT = "ein See bei Nacht, Nebel über dem Wasser"
TIMES = (
    "created_ms",
    "started_ms",
    "ended_ms",
    "queued_ms",
    "deadline_ms",
    "start_by_ms",
    "parked_until_ms",
    "paused_ms",
)
ACME = {"succeeded", "cancelled", "failed", "dead", "running", "publishing", "parked", "queued", "urgent", "continued"}
BETA = {"barring0", "barring1", "barred"}


async def restore(client: Any, redis: RedisConfig) -> None:
    """Puts the store back as it was, at today's time."""
    seconds, _ = await client.time()
    shift, root = seconds * 1000 - WRITTEN["written_ms"], Keys(redis.namespace).root
    for name, held in WRITTEN["keys"].items():
        key, value = root + name, held["value"]
        match held["type"]:
            case "string":
                await client.set(key, value)
            case "hash":
                moved = {field: int(value[field]) + shift for field in TIMES if value.get(field)}
                named = {field: text.replace("helios:{old}:", root) for field, text in value.items()}
                await client.hset(key, mapping=named | moved)
            case "list":
                await client.rpush(key, *value)
            case "set":
                await client.sadd(key, *value)
            case "zset" if name in ("leases", "deadlines", "parked"):
                await client.zadd(key, {member: score + shift for member, score in value.items()})
            case "zset":
                await client.zadd(key, value)
        if held["ttl_ms"]:
            await client.pexpire(key, held["ttl_ms"])


@pytest.fixture
async def client(redis: RedisConfig) -> AsyncIterator[Any]:
    async with async_client(redis.url) as client:
        await restore(client, redis)
        yield client


@pytest.fixture
async def store(client: Any, redis: RedisConfig) -> AsyncIterator[JobStore]:
    store = Connector(redis, JOBS).store()
    yield store
    await store.close()


async def claimed(store: JobStore, job_id: str) -> Claim:
    claim = await store.claim("m", "w", f"nonce of {job_id}")
    assert claim is not None
    assert claim.job.id == job_id
    return claim


async def finished(store: JobStore, lease: Lease, chunks: range) -> JobState:
    """Makes what is missing."""
    for index in chunks:
        assert (await store.begin_chunk(lease, index, 0)).verdict is Verdict.GO
        await append(store, lease, index)
    await store.begin_publish(lease)
    return (await store.succeed(lease, artifact="a.mp4", video_bytes=7)).state


async def test_every_job_is_there_as_it_was_and_each_tenant_sees_its_own(store: JobStore) -> None:
    listed = {tenant: (await store.page(limit=99, tenant=tenant)).jobs for tenant in ("acme", "beta", "", "other")}
    assert {tenant: {job.id for job in jobs} for tenant, jobs in listed.items()} == {
        "acme": ACME,
        "beta": BETA,
        "": set(),
        "other": set(),
    }
    every = (await store.page(limit=99)).jobs
    assert [job.id for job in every[:3]] == ["continued", "urgent", "queued"]  # the newest first
    assert {job.id for job in every} == ACME | BETA
    assert [job.id for job in (await store.page(limit=9, tenant="acme", dead_letters=True)).jobs] == ["dead"]
    assert (await store.page(limit=9, tenant="beta", dead_letters=True)).jobs == []
    for job_id in ACME | BETA:
        job, stored = await store.get(job_id), WRITTEN["keys"][f"job:{job_id}"]["value"]
        assert (job.state, job.chunks_done) == (stored["state"], int(stored["chunks_done"]))
        assert job.spec.params["seed"] == 7
        whole = job.state not in (JobState.CANCELLED, JobState.FAILED) or job_id == "dead"
        assert job.spec.params["prompt"] == (PROMPT if whole else "")
    succeeded = await store.get("succeeded")
    assert (succeeded.artifact, succeeded.video_bytes, succeeded.spec.labels) == ("succeeded.mp4", 7, {"team": "night"})
    assert (await store.get("failed")).error is not None
    (update,) = (await store.get("running")).prompt_updates
    assert update == ScheduledPrompt(chunk_index=2, prompt="roter Schnee fällt", interpolation_chunks=3)


async def test_what_each_account_stores_is_counted(store: JobStore, client: Any, redis: RedisConfig) -> None:
    await store.sweep()
    root = Keys(redis.namespace)
    for account, jobs in (("acme-1", ACME), ("beta-1", BETA)):
        stored = {
            name.decode(): int(value) for name, value in (await client.hgetall(root.of("storage", account))).items()
        }
        total = stored.pop(":total")
        assert set(stored) == jobs
        assert total == sum(stored.values())
        for job_id, size in stored.items():
            lengths = [await client.hstrlen(root.of("job", job_id), name) for name in ("spec", "summary")]
            assert sum(lengths) + 4096 <= size <= sum(lengths) + 4096 + 200
    kept = {
        member.decode(): end for member, end in await client.zrange(root.of("kept", "acme-1"), 0, -1, withscores=True)
    }
    assert set(kept) == {f"acme:{job_id}" for job_id in ("succeeded", "cancelled", "failed", "dead")}
    seconds, _ = await client.time()
    for member, end in kept.items():
        left = await client.pttl(root.of("job", member.partition(":")[2]))
        assert abs(end - seconds * 1000 - left) < 60_000


async def test_jobs_that_waited_are_run_in_their_order(store: JobStore) -> None:
    urgent = await claimed(store, "urgent")
    assert urgent.job.spec.params["prompt"] == PROMPT
    assert GenerationRequest.from_dict(urgent.job.spec.params).prompt == PROMPT
    assert await finished(store, urgent.lease, range(3)) is JobState.SUCCEEDED
    continued = await claimed(store, "continued")  # beta's has to wait for another of beta's
    assert continued.checkpoint == b"state 2"
    await claimed(store, "queued")
    await store.cancel("barring0")
    await claimed(store, "barred")
    assert await store.claim("m", "w", "none left") is None


async def test_leases_go_on_and_so_does_what_was_under_way(store: JobStore, client: Any, redis: RedisConfig) -> None:
    await store.sweep()
    fields = WRITTEN["keys"]["job:running"]["value"]
    lease = Lease(job_id="running", token=int(fields["token"]), worker_id=fields["worker"])
    await claimed(store, "urgent")
    start = await store.begin_chunk(lease, 1, 0)
    assert [update.prompt for update in start.prompt_updates] == ["roter Schnee fällt"]
    await append(store, lease, 1)
    assert await finished(store, lease, range(2, 3)) is JobState.SUCCEEDED
    assert set(await let_lapse(store, redis)) == {"urgent", "publishing", "barring0", "barring1"}
    assert (await store.get("publishing")).state is JobState.QUEUED


async def test_a_session_that_was_set_aside_comes_back(store: JobStore) -> None:
    await store.control("parked", Control.RESUME)
    for job_id in ("urgent", "parked", "continued", "queued"):
        await claimed(store, job_id)


async def test_a_dead_letter_can_be_queued_again(store: JobStore, client: Any, redis: RedisConfig) -> None:
    await store.sweep()
    await store.requeue("dead", "n")
    job = await store.get("dead")
    assert (job.state, job.chunks_done, job.spec.params["prompt"]) == (JobState.QUEUED, 1, PROMPT)
    assert await client.zscore(Keys(redis.namespace).of("kept", "acme-1"), "acme:dead") is None


async def test_a_repetition_of_an_old_submission_is_recognised(store: JobStore) -> None:
    wanted = (await store.get("running")).spec
    account = Account(id="acme-1")
    assert (await store.submit("new", wanted, account=account, idempotency_key="acme:k2")).id == "running"
    with pytest.raises(IdempotencyConflict):
        await store.submit("new", replace(wanted, chunks_total=9), account=account, idempotency_key="acme:k2")


async def test_video_time_that_was_taken_is_given_back(store: JobStore, client: Any, redis: RedisConfig) -> None:
    (name,) = [name for name in WRITTEN["keys"] if name.startswith("video_ms:acme-1:")]
    key = Keys(redis.namespace).root + name
    before = int(await client.get(key))
    await store.cancel("running")  # one of three chunks was made
    assert before - int(await client.get(key)) == 2 * 1375


async def test_many_processes_may_migrate_at_once(client: Any, redis: RedisConfig) -> None:
    stores = [Connector(redis, JOBS).store() for _ in range(5)]
    pages = await asyncio.gather(*(store.page(limit=99, tenant="acme") for store in stores))
    assert [{job.id for job in page.jobs} for page in pages] == [ACME] * 5
    stored = await client.hgetall(Keys(redis.namespace).of("storage", "acme-1"))
    assert int(stored.pop(b":total")) == sum(map(int, stored.values()))
    for store in stores:
        await store.close()


async def test_what_a_process_of_the_old_release_does_meanwhile_is_made_good(
    store: JobStore, client: Any, redis: RedisConfig
) -> None:
    await store.sweep()  # migrated
    root = Keys(redis.namespace)
    old = WRITTEN["keys"]["job:queued"]["value"]
    await client.hset(root.of("job", "late"), mapping=old | {"seq": 14})  # submitted through an old gateway
    await client.zadd(root.of("index"), {"late": 14})
    await client.zadd(root.of("queue", "m", "batch"), {"late": 14})
    await client.zadd(root.of("lane", "m", "batch", "acme-1"), {"late": 14})
    await client.hset(root.of("job", "barring0"), mapping={"state": "cancelled", "ended_ms": 1})  # ended by one
    await client.pexpire(root.of("job", "barring0"), 1000_000)
    await client.zrem(root.of("leases"), "barring0")
    await client.hdel(root.of("job", "dead"), "ended_ms", "error_reason")  # queued again by one
    await client.hset(root.of("job", "dead"), "state", "queued")
    await client.zadd(root.of("kept", "acme-1"), {"acme:dead": 1})
    await client.zadd(root.of("expiring"), {"acme-1": 1})
    for _ in range(3):  # each looks at some jobs
        await store.sweep()
    assert "late" in {job.id for job in (await store.page(limit=99, tenant="acme")).jobs}
    assert await client.hexists(root.of("storage", "acme-1"), "late")
    assert await client.zscore(root.of("kept", "beta-1"), "beta:barring0") is not None
    assert (await store.get("dead")).state is JobState.QUEUED
    nonces = iter("abcdef")
    ids = set()
    while (claim := await store.claim("m", "w", next(nonces))) is not None:
        ids.add(claim.job.id)
    assert "barred" in ids  # which waited for the one that an old process has ended


def test_a_request_that_says_nothing_new_has_the_text_of_old() -> None:
    assert not any(name in spec_to_json(spec()) for name in LATER_FIELDS)


@pytest.mark.parametrize(
    ("name", "value"), [("timeout_s", 5.0), ("queue_timeout_s", 5.0), ("webhook_url", "https://x")]
)
def test_what_is_new_is_part_of_the_request(name: str, value: Any) -> None:
    assert name in spec_to_json(replace(spec(), **{name: value}))


async def test_fields_of_a_newer_release_do_not_matter(store: JobStore, client: Any, redis: RedisConfig) -> None:
    await store.submit("a", spec())
    text = spec_to_json(spec())
    await client.hset(Keys(redis.namespace).of("job", "a"), "spec", text.replace('{"', '{"from_the_future":1,"', 1))
    assert (await store.get("a")).spec == spec()
