"""What a call costs does not depend on what others have stored: counted by Redis, call by call, never timed.

Of each call: the commands that Redis runs, those within scripts included (INFO commandstats), the bytes in and out
(INFO stats), and the bytes that scripts hand to commands and get back (a count added to the scripts themselves).
"""

from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import pytest

from helios_engine.prompts import ScheduledPrompt
from helios_services.config import RedisConfig
from helios_services.jobs import calls, scripts
from helios_services.jobs.connector import Connector
from helios_services.jobs.keys import Keys
from helios_services.jobs.listing import JOBS_LOOKED_AT, PAGE_BYTES
from helios_services.jobs.records import Account, Control, JobFailure, JobSpec, Media, Priority, Verdict
from helios_services.jobs.state import JobState
from helios_services.jobs.store import JobStore
from helios_services.jobs.work import JOBS_COUNTED
from services.jobs.conftest import JOBS, append, spec
from support.redis_clients import async_client

LOUD, QUIET = Account(id="loud", max_running=40), Account(id="quiet")
UPLOADS: dict[str, Any] = {"max_uploads": 1000, "max_upload_bytes": 1000}
WEBHOOK = "https://hooks.example/x"
LIMITS = JOBS.model_copy(update={"max_queued": 1000, "max_account_bytes": 64 * 1024**2})
METER = """
local real = redis
local function size(value)
  if type(value) == 'string' then return #value elseif type(value) ~= 'table' then return 8 end
  local sum = 0
  for _, part in pairs(value) do sum = sum + size(part) end
  return sum
end
local redis = {call = function(...)
  local answer = real.call(...)
  real.call('HINCRBYFLOAT', KEYS[1] .. 'cost', 'bytes', size({...}) + size(answer))
  return answer
end, pcall = real.pcall}
"""


@dataclass(frozen=True)
class Cost:
    """What one call takes."""

    commands: int
    net_bytes: int
    script_bytes: int

    def within(self, other: "Cost", factor: float = 2.0) -> bool:
        """Whether it is at most a small multiple of the other, give or take some small change."""
        return (
            self.commands <= factor * other.commands + 24
            and self.net_bytes <= factor * other.net_bytes + 4096
            and self.script_bytes <= factor * other.script_bytes + 4096
        )


class Meter:
    """Counts what calls cost."""

    def __init__(self, client: Any, redis: RedisConfig) -> None:
        self._client, self._cost = client, Keys(redis.namespace).of("cost")
        self.costs: dict[str, Cost] = {}

    async def of(self, name: str, call: Awaitable[Any]) -> Any:
        """Awaits a call."""
        before = await self._read()
        result = await call
        after = await self._read()
        own = await self._own()
        spent = [b - a - o for a, b, o in zip(before, after, own, strict=True)]
        known = self.costs.get(name, Cost(0, 0, 0))
        self.costs[name] = Cost(
            *map(max, zip(spent, (known.commands, known.net_bytes, known.script_bytes), strict=True))
        )
        return result

    async def _own(self) -> list[int]:
        """What reading takes itself."""
        first, second = await self._read(), await self._read()
        return [b - a for a, b in zip(first, second, strict=True)]

    async def _read(self) -> list[int]:
        stats = await self._client.info("commandstats")
        commands = sum(each["calls"] for name, each in stats.items() if name != "cmdstat_hincrbyfloat")
        net = await self._client.info("stats")
        script_bytes = float(await self._client.hget(self._cost, "bytes") or 0)
        return [commands, net["total_net_input_bytes"] + net["total_net_output_bytes"], int(script_bytes)]


@pytest.fixture
async def client(redis: RedisConfig, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """An administrator. The scripts are metered."""
    monkeypatch.setattr(calls, "source", lambda name: METER + scripts.source(name))
    async with async_client(redis.url) as client:
        yield client


@pytest.fixture
async def store(redis: RedisConfig, client: Any) -> AsyncIterator[JobStore]:
    store = Connector(redis, LIMITS).store()
    yield store
    await store.close()


def large(tenant: str, **fields: Any) -> JobSpec:
    """The largest job that is allowed."""
    labels = {f"label {number:02d}": "é" * 250 for number in range(16)}
    job = replace(spec(5, prompt=""), tenant=tenant, labels=labels, webhook_url=WEBHOOK, **fields)
    room = LIMITS.max_job_bytes - 15_000
    return replace(job, params=job.params | {"prompt": "ü" * (room // 2)})


async def claim_of(store: JobStore, account: str, model: str = "m") -> Any:
    claim = await store.claim(model, f"worker of {account}", uuid4().hex)
    assert claim is not None
    assert claim.job.account == account
    return claim


async def fill(store: JobStore) -> None:
    """Another tenant has as many as it may of all kinds of jobs, each as large as it may be."""

    async def submit(name: str, **fields: Any) -> str:
        return (await store.submit(f"{name}-{uuid4().hex}", large("loud", **fields), account=LOUD)).id

    for _ in range(60):  # dead letters, failed, cancelled and succeeded ones
        job_id = await submit("dead")
        claim = await claim_of(store, "loud")
        await store.begin_chunk(claim.lease, 0, 0)
        await append(store, claim.lease, 0)
        await store.fail(claim.lease, JobFailure(reason="GENERATION_FAILED", message="m" * 2000))
        await store.cancel(await submit("cancelled"))
    for _ in range(30):  # paused sessions, set aside
        job_id = await submit("parked", session=True, priority=Priority.INTERACTIVE)
        claim = await claim_of(store, "loud")
        await store.control(job_id, Control.PAUSE)
        assert await store.park(claim.lease)
    for _ in range(45):  # as many running as may, five barred
        job_id = await submit("running", timeout_s=86400.0)
    for _ in range(40):
        claim = await claim_of(store, "loud")
        await store.begin_chunk(claim.lease, 0, 0)
        update = ScheduledPrompt(chunk_index=4, prompt="ü" * 8000)
        await store.update_prompt(claim.job.id, update, uuid4().hex)
    for _ in range(400):
        await submit("queued", queue_timeout_s=86400.0)
    for number in range(100):
        media = Media(id=f"m{number}", name=f"m{number}.png", content_type="i", size_bytes=1, expire_s=0, tenant="loud")
        await store.reserve_media(media.name, 1, lease_s=1000, max_files=1000, account=replace(LOUD, **UPLOADS))
        await store.add_media(media, ttl_s=1000, account=LOUD)


async def a_quiet_life(store: JobStore, meter: Meter) -> None:
    """Every call of the store, for a tenant with a few small jobs."""

    async def submit(name: str, **fields: Any) -> Any:
        wanted = replace(spec(3), tenant="quiet", **fields)
        return await meter.of("submit", store.submit(name, wanted, account=QUIET, idempotency_key=f"quiet:{name}"))

    async def claim() -> Any:
        claim = await meter.of("claim", store.claim("m", "worker of quiet", uuid4().hex))
        assert claim.job.account == "quiet"
        return claim

    await submit("a")
    lease = (await claim()).lease
    assert (await meter.of("begin", store.begin_chunk(lease, 0, 0))).verdict is Verdict.GO
    update = ScheduledPrompt(chunk_index=2, prompt="a sea")
    await meter.of("update_prompt", store.update_prompt("a", update, "n"))
    await meter.of("save_prompt_embeds", store.save_prompt_embeds(lease, "k", b"e", keep=()))
    await meter.of("append", append(store, lease, 0))
    await meter.of("give_way", store.give_way(lease))
    await meter.of("release", store.release(lease))
    lease = (await claim()).lease
    for index in (1, 2):
        await meter.of("begin", store.begin_chunk(lease, index, 0))
        await meter.of("append", append(store, lease, index))
    await meter.of("publish", store.begin_publish(lease))
    await meter.of("succeed", store.succeed(lease, artifact="a.mp4", video_bytes=1))
    job = await meter.of("get", store.get("a"))
    await meter.of("chunk_records", store.chunk_records(job))
    await meter.of("fragment", store.fragment("a", 0))
    await submit("b", continue_from="a")
    lease = (await claim()).lease
    await meter.of("fail", store.fail(lease, JobFailure(reason="GENERATION_FAILED", message="m")))
    await meter.of("requeue", store.requeue("b", "n"))
    lease = (await claim()).lease
    await meter.of("fail", store.fail(lease, JobFailure(reason="GENERATION_FAILED", message="m")))
    for options in ({}, {"states": [JobState.SUCCEEDED]}, {"model": "none"}, {"dead_letters": True}):
        page = await meter.of(f"page {options}", store.page(limit=500, tenant="quiet", **options))
        assert all(job.spec.tenant == "quiet" for job in page.jobs)
    await meter.of("purge", store.purge("b", "n"))
    await submit("c", session=True)
    lease = (await claim()).lease
    await meter.of("keep_session", store.keep_session("c"))
    await meter.of("chunks_read", store.chunks_read("c", 0))
    await meter.of("control", store.control("c", Control.PAUSE))
    await meter.of("park", store.park(lease))
    await meter.of("control", store.control("c", Control.RESUME))
    await meter.of("cancel", store.cancel("c"))
    media = Media(id="q", name="q.png", content_type="i", size_bytes=1, expire_s=0, tenant="quiet")
    place = store.reserve_media(media.name, 1, lease_s=1000, max_files=1000, account=replace(QUIET, **UPLOADS))
    await meter.of("reserve_media", place)
    await meter.of("add_media", store.add_media(media, ttl_s=1000, account=QUIET))
    await meter.of("media", store.media("q"))
    await meter.of("forget_media", store.forget_media(["q.png"], QUIET))
    await meter.of("sweep", store.sweep())
    await meter.of("sweep", store.sweep())
    await meter.of("depths", store.depths("m"))
    await meter.of("dead_letters", store.dead_letters())
    await meter.of("ended", store.ended())


async def measured(store: JobStore, meter: Meter) -> dict[str, Cost]:
    """Costs once scripts are loaded and connections made."""
    await a_quiet_life(store, meter)
    for job_id in "abc":
        await _gone(store, job_id)
    meter.costs.clear()
    await a_quiet_life(store, meter)
    return dict(meter.costs)


async def _gone(store: JobStore, job_id: str) -> None:
    """As if the record's time were over."""
    keys, client = store._keys, store._client
    await client.zadd(keys.of("kept", "quiet"), {f"quiet:{job_id}": 1})
    await client.zadd(keys.of("expiring"), {"quiet": 1})
    await store.sweep()


async def test_no_call_of_a_tenant_costs_more_for_what_another_has_stored(
    store: JobStore, client: Any, redis: RedisConfig
) -> None:
    meter = Meter(client, redis)
    alone = await measured(store, meter)
    for job_id in "abc":
        await _gone(store, job_id)
    await fill(store)
    crowded = await measured(store, meter)
    assert set(alone) == set(crowded)
    dearer = {name: (alone[name], cost) for name, cost in crowded.items() if not cost.within(alone[name])}
    assert not dearer


async def test_what_looks_at_everything_looks_at_a_bounded_part(
    store: JobStore, client: Any, redis: RedisConfig
) -> None:
    """Counts for the autoscaling, and lists of an operator, who sees every tenant."""
    await fill(store)
    meter = Meter(client, redis)
    await store.work("m")
    await meter.of("work", store.work("m"))
    leases = 40
    assert meter.costs["work"].commands <= 3 * JOBS_COUNTED + 2 * leases + 50
    assert meter.costs["work"].script_bytes <= 400 * (3 * JOBS_COUNTED + leases)
    await store.page(limit=1)
    page = await meter.of("page", store.page(limit=500))
    assert len(page.jobs) > 50
    assert meter.costs["page"].commands <= 2 * JOBS_LOOKED_AT + 10
    assert meter.costs["page"].net_bytes <= PAGE_BYTES * 1.1


async def test_what_is_due_all_at_once_is_done_in_small_parts(store: JobStore, client: Any, redis: RedisConfig) -> None:
    """Leases lapse, deadlines pass and records expire, hundreds at a time; nobody's call has to do all of it."""
    await fill(store)
    keys = store._keys
    for name in ("leases", "deadlines", "parked", "kept:loud"):
        for member in await client.zrange(keys.of(name), 0, -1):
            await client.zadd(keys.of(name), {member: 1})
    for job_id in await client.zrange(keys.of("deadlines"), 0, -1):
        await client.hset(keys.of("job", job_id.decode()), "deadline_ms", 1)
    await client.zadd(keys.of("expiring"), {"loud": 1})
    due = await client.zcard(keys.of("deadlines")) + await client.zcard(keys.of("leases"))
    assert due > 400
    meter = Meter(client, redis)
    await meter.of("part", store._sweep_once())
    assert meter.costs["part"].commands < 6000
    assert await client.zcard(keys.of("deadlines")) > 350
    await store.submit("a", replace(spec(), tenant="quiet"), account=QUIET)
    await meter.of("claim", store._run("claim", "m", "w", "n", 1000, 1000, 3))
    assert meter.costs["claim"].commands < 120
    await store.sweep()  # all of it, in as many parts as it takes
    assert await client.zcard(keys.of("deadlines")) == 0
    assert await client.zcount(keys.of("kept", "loud"), 1, 1) == 0


@pytest.mark.parametrize("barred", [1, 300])
async def test_accounts_that_may_not_run_another_job_hold_nobody_up(
    store: JobStore, client: Any, redis: RedisConfig, barred: int
) -> None:
    for number in range(barred):
        account = Account(id=f"barred{number}", max_running=1)
        for _ in range(2):
            await store.submit(uuid4().hex, spec(), account=account)
        assert (await claim_of(store, account.id)).job.account == account.id
    await store.submit("a", spec(), account=QUIET)
    meter = Meter(client, redis)
    await meter.of("claim", store.claim("m", "w", "n"))
    assert meter.costs["claim"].commands < 150
