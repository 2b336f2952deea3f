"""Random histories of the job store: the Lua scripts in a real Redis against a plain model of what they are for.

After every call, everything in Redis is held to the model, and the call is repeated, as a client does whose answer got
lost: it must be answered the same and change nothing. HELIOS_MODEL_EXAMPLES=1000 tries more histories, other ones each
time.
"""

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from redis.asyncio import Redis

from helios_engine.prompts import ScheduledPrompt
from helios_services.config import JobsConfig, RedisConfig
from helios_services.jobs import keys
from helios_services.jobs.charge import CHUNK_MS, charge_of
from helios_services.jobs.codec import stored_json, summary_json
from helios_services.jobs.errors import JobStoreError
from helios_services.jobs.records import Account, Control, JobFailure, JobSpec, Lease, Priority
from helios_services.jobs.state import FINAL, Event, JobState
from helios_services.jobs.store import JobStore
from helios_services.jobs.worker_calls import EVERY_RANK
from services.jobs.conftest import record, spec
from services.jobs.store_model import Model, ModelJob
from support.redis_clients import async_client

EXAMPLES = int(os.environ.get("HELIOS_MODEL_EXAMPLES", 0))
STEPS = 40
NAMESPACE, DATABASE = "model", 9
FAR_S = 10_000.0
"""What is so far away never comes in a test; times pass because the test says so."""
JOBS = JobsConfig(
    lease_s=FAR_S,
    heartbeat_s=1.0,
    max_queued=6,
    max_attempts=2,
    fair_quantum_chunks=2.0,
    live_window_chunks=2,
    max_prompt_updates=2,
    session_grace_s=FAR_S,
    pause_limit_s=FAR_S,
    job_ttl_s=FAR_S,
    chunk_ttl_s=FAR_S,
    max_job_bytes=1000,
    max_prompt_update_bytes=190,
    max_account_bytes=24_000,
)
ACCOUNTS = (
    Account(id="a"),
    Account(id="b", weight=3.0, max_running=1),
    Account(id="c", max_queued=2, video_minutes_per_day=6 * CHUNK_MS / 60_000),
)
WORK: tuple[dict[str, Any], ...] = (
    {},
    {"height": 768},
    {"fps": 120, "pyramid_steps": [1, 1, 4], "guidance_scale": 1.0, "amplify_first_chunk": True},
)
"""What makes a job's chunks cost more or less."""
REASONS = ("GENERATION_FAILED", "INVALID_REQUEST")
ENDLESS = {line.split("|")[1].strip().split(":")[0] for line in keys.__doc__.splitlines() if "| never: " in line}
"""Keys that keys.py lists as having no expiry."""
COUNTED = ("state", "chunks_done", "chunks_total", "chunks_started", "first_chunk", "attempts", "losses", "token")
DUMP = """
local read = {hash = {'HGETALL'}, list = {'LRANGE', 0, -1}, zset = {'ZRANGE', 0, -1, 'WITHSCORES'}, set = {'SMEMBERS'},
              string = {'GET'}}
local out = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key).ok
  local command, from, to, extra = unpack(read[kind])
  local value
  if extra then value = redis.call(command, key, from, to, extra)
  elseif from then value = redis.call(command, key, from, to)
  else value = redis.call(command, key) end
  out[#out + 1] = {key, kind, redis.call('PTTL', key) > 0 and 1 or 0, value}
end
return out
"""
Dump = dict[str, tuple[bool, Any]]


class StoreMachine(RuleBasedStateMachine):
    """One history."""

    runner: asyncio.Runner
    client: Redis
    url: str

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(JOBS)
        self.store = JobStore(self.client, RedisConfig(url=self.url, namespace=NAMESPACE), JOBS)
        self.specs: dict[str, JobSpec] = {}
        self.leases: list[Lease] = []
        self.count = 0
        self.run(self.client.flushdb())

    def run(self, call: Awaitable[Any]) -> Any:
        """Waits for it."""
        return self.runner.run(_awaited(call))

    # ---- what is drawn ----

    def job(self, data: st.DataObject) -> ModelJob:
        """Any job."""
        return data.draw(st.sampled_from(list(self.model.jobs.values())), label="job")

    def held(self, data: st.DataObject) -> tuple[Lease, ModelJob]:
        """A lease: mostly one in force, now and then an old one."""
        current = [lease for lease in self.leases if self.model.holds(lease.job_id, lease.token)]
        self.leases = [lease for lease in self.leases if lease.job_id in self.model.jobs]
        sources = [current] * 6 + [self.leases] if current else [self.leases]
        lease = data.draw(st.sampled_from(data.draw(st.sampled_from(sources))), label="lease")
        return lease, self.model.jobs[lease.job_id]

    # ---- clients ----

    @rule(
        account=st.sampled_from(ACCOUNTS),
        priority=st.sampled_from(Priority),
        chunks=st.sampled_from([1, 2, 3, 3, 4, 0]),
        session=st.booleans(),
        key=st.sampled_from(["", "", "", "k1", "k2"]),
        timeouts=st.sampled_from([(None, None), (None, None), (FAR_S, None), (None, FAR_S), (FAR_S, FAR_S)]),
        work=st.sampled_from(WORK),
        data=st.data(),
    )
    def submit(
        self,
        account: Account,
        priority: Priority,
        chunks: int,
        session: bool,
        key: str,
        timeouts: tuple[float | None, float | None],
        work: dict[str, Any],
        data: st.DataObject,
    ) -> None:
        """Submits a job, perhaps under a key that was used before, perhaps to continue another."""
        parents = [job.id for job in self.model.jobs.values() if job.ended]
        parent = data.draw(st.sampled_from(["", "", *parents]), label="parent")
        wanted = replace(
            spec(chunks, priority, **work),
            session=session,
            timeout_s=timeouts[0],
            queue_timeout_s=timeouts[1],
            continue_from=parent,
            tenant=account.id,
        )
        key = key and f"{account.id}:{key}"
        seq, charge = self.model.accepted + 1, charge_of(wanted.params)
        job_id = f"job{seq:03d}"
        new = ModelJob(
            id=job_id,
            seq=seq,
            account=account,
            priority=priority,
            chunks_total=chunks,
            session=session,
            key=key,
            first_chunk_ms=charge.first_chunk_ms,
            chunk_ms=charge.chunk_ms,
            request_bytes=len(stored_json(vars(wanted))),
            summary_bytes=len(summary_json(vars(wanted))),
        )
        first = self.model.keys.get(key, "")
        known = bool(first) and self.specs[first] != wanted
        expected = self.model.submit(
            new,
            parent=parent,
            timeout=timeouts[0] is not None,
            queue_timeout=timeouts[1] is not None,
            known=known,
            kept=self.kept(account),
        )
        if job_id in self.model.jobs:
            self.specs[job_id] = wanted

        async def call() -> str:
            return f"ok {(await self.store.submit(job_id, wanted, account=account, idempotency_key=key)).id}"

        self.compare(expected, call)

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """A client cancels."""
        job = self.job(data)
        self.compare(self.model.cancel(job), lambda: _ok(self.store.cancel(job.id)))

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data(), action=st.sampled_from(Control))
    def control(self, data: st.DataObject, action: Control) -> None:
        """A client pauses, resumes or stops."""
        job = self.job(data)
        self.compare(self.model.control(job, action), lambda: _ok(self.store.control(job.id, action)))

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data(), chunk=st.integers(0, 3))
    def update_prompt(self, data: st.DataObject, chunk: int) -> None:
        """A client changes the prompt."""
        job, prompt = self.job(data), f"prompt {self.count}"
        update = ScheduledPrompt(chunk_index=chunk, prompt=prompt, interpolation_chunks=0)
        self.count += 1
        nonce = f"nonce {self.count}"

        async def call() -> str:
            return str(await self.store.update_prompt(job.id, update, nonce))

        self.compare(self.model.update_prompt(job, chunk, prompt, nonce, self.kept(job.account)), call)

    @precondition(lambda self: any(job.session for job in self.model.jobs.values()))
    @rule(data=st.data(), count=st.integers(0, 5))
    def read(self, data: st.DataObject, count: int) -> None:
        """A session's client has been sent chunks."""
        job = self.job(data)
        count = min(count, job.chunks_done)
        self.compare(self.model.read(job, count), lambda: _ok(self.store.chunks_read(job.id, count)))

    @precondition(lambda self: any(job.session for job in self.model.jobs.values()))
    @rule(data=st.data())
    def keep_session(self, data: st.DataObject) -> None:
        """A session's client gives a sign of life."""
        job = self.job(data)
        self.compare(self.model.keep_session(job), lambda: _ok(self.store.keep_session(job.id)))

    @precondition(lambda self: any(job.state is JobState.FAILED for job in self.model.jobs.values()))
    @rule(data=st.data(), script=st.sampled_from(["requeue", "requeue", "purge"]))
    def dead_letter(self, data: st.DataObject, script: str) -> None:
        """An operator queues a dead letter again, or gives it up."""
        failed = [job for job in self.model.jobs.values() if job.state is JobState.FAILED]
        job = data.draw(st.sampled_from(failed), label="job")
        expected = self.model.requeue(job) if script == "requeue" else self.model.purge(job)
        ask = self.store.requeue if script == "requeue" else self.store.purge
        self.count += 1
        nonce = f"asked {self.count}"
        self.compare(expected, lambda: _ok(ask(job.id, nonce)))

    # ---- workers ----

    @rule(interactive_only=st.sampled_from([False, False, False, True]), worker=st.sampled_from(["x", "x", "y"]))
    def claim(self, interactive_only: bool, worker: str) -> None:
        """A worker asks for a job."""
        self.count += 1
        nonce = f"claim {self.count}"
        job = self.model.claim(1 if interactive_only else EVERY_RANK, worker)

        async def call() -> str:
            claim = await self.store.claim("m", worker, nonce, interactive_only=interactive_only)
            if claim is None:
                return "none"
            assert (claim.checkpoint, claim.prompt_embeds) == (job and job.checkpoint, job and job.embeds)
            if claim.lease not in self.leases:
                self.leases.append(claim.lease)
            return f"{claim.job.id} {claim.lease.token}"

        self.compare(f"{job.id} {job.token}" if job else "none", call)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """A worker asks whether to make the next chunk, or the one behind it if that one is being decoded."""
        lease, job = self.held(data)
        ahead = job.chunks_done < job.chunks_started and data.draw(st.booleans(), label="ahead")
        index = job.chunks_done + ahead
        if self.model.holds(job.id, lease.token) and (
            job.state is JobState.PUBLISHING or (job.chunks_total and index >= job.chunks_total and not job.stopping)
        ):
            return  # no worker asks
        expected = self.model.begin(job, lease.token, index)

        async def call() -> str:
            start = await self.store.begin_chunk(lease, index, 0)
            if start.verdict == "ok":
                assert [update.prompt for update in start.prompt_updates] == job.prompts
                assert (start.left_s is not None) == job.deadline
            return str(start.verdict)

        self.compare(expected, call)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), skipped=st.sampled_from([0, 0, 0, 0, 1]))
    def append(self, data: st.DataObject, skipped: int) -> None:
        """A worker has made a chunk."""
        lease, job = self.held(data)
        index = job.chunks_done + skipped
        if self.model.holds(job.id, lease.token) and job.state is JobState.PUBLISHING:
            return
        self.compare(self.model.append(job, lease.token, index), lambda: _ok(_append(self.store, lease, index)))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def make_chunks(self, data: st.DataObject) -> None:
        """A worker goes on for as long as it is let."""
        lease, job = self.held(data)
        for _ in range(4):
            if not job.leased or job.state is JobState.PUBLISHING or 0 < job.chunks_total <= job.chunks_done:
                return
            index = job.chunks_done
            verdict = self.model.begin(job, lease.token, index)
            self.compare(verdict, lambda index=index: _verdict(self.store, lease, index))  # type: ignore[misc]
            if verdict != "ok":
                return
            expected = self.model.append(job, lease.token, index)
            self.compare(expected, lambda index=index: _ok(_append(self.store, lease, index)))  # type: ignore[misc]

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), key=st.sampled_from("xyz"), keep=st.sampled_from([(), ("x",), ("x", "y")]))
    def save_embeds(self, data: st.DataObject, key: str, keep: tuple[str, ...]) -> None:
        """A worker keeps an embedding."""
        lease, job = self.held(data)
        expected = self.model.save_embeds(job, lease.token, key, keep)
        self.compare(expected, lambda: _ok(self.store.save_prompt_embeds(lease, key, b"embedding", keep=keep)))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        """A worker's heartbeat."""
        lease, job = self.held(data)

        async def call() -> str:
            answer = await self.store._run("renew", lease.job_id, lease.token, int(JOBS.lease_s * 1000))
            return {"ok": "ok", "lease_lost": "LeaseLost"}[answer[0]]

        self.compare(self.model.renew(job, lease.token), call)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        """A worker thinks that all chunks are there."""
        lease, job = self.held(data)
        if job.chunks_total or not self.model.holds(job.id, lease.token):
            self.compare(self.model.publish(job, lease.token), lambda: _ok(self.store.begin_publish(lease)))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        """A worker has published the video."""
        lease, job = self.held(data)
        expected = self.model.finish(job, lease.token, Event.SUCCEED)
        self.compare(expected, lambda: _ok(self.store.succeed(lease, artifact="a.mp4", video_bytes=7)))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), reason=st.sampled_from(REASONS))
    def fail(self, data: st.DataObject, reason: str) -> None:
        """A worker cannot go on."""
        lease, job = self.held(data)
        expected = self.model.finish(job, lease.token, Event.FAIL, reason)
        self.compare(expected, lambda: _ok(self.store.fail(lease, JobFailure(reason=reason, message="why"))))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), why=st.sampled_from(["release", "give_way", "park"]))
    def give_back(self, data: st.DataObject, why: str) -> None:
        """A worker gives a job back."""
        lease, job = self.held(data)
        call = {"release": self.store.release, "give_way": self.store.give_way, "park": self.store.park}[why]

        async def given() -> str:
            return "kept" if await call(lease) is False else "ok"

        self.compare(self.model.give_back(job, lease.token, why), given)

    # ---- time ----

    @rule()
    def sweep(self) -> None:
        """A gateway looks after what time brings about. (Swept again, there is nothing left.)"""
        expected = " ".join(sorted(self.model.sweep()))

        async def call() -> str:
            return " ".join(sorted(await self.store.sweep()))

        self.compare(expected, call, again="")

    @precondition(lambda self: any(job.leased for job in self.model.jobs.values()))
    @rule(data=st.data())
    def lapse(self, data: st.DataObject) -> None:
        """A lease runs out."""
        leased = [job for job in self.model.jobs.values() if job.leased]
        job = data.draw(st.sampled_from(leased), label="job")
        job.lapsed = True
        self.run(self.client.zadd(self.key("leases"), {job.id: 1}))

    @precondition(lambda self: any(not job.ended for job in self.model.jobs.values()))
    @rule(data=st.data(), name=st.sampled_from(["deadline", "start_by", "pause", "client"]))
    def too_late(self, data: st.DataObject, name: str) -> None:
        """A deadline or a queue timeout passes, a pause becomes too long, a session's client goes."""
        job = data.draw(st.sampled_from([job for job in self.model.jobs.values() if not job.ended]), label="job")
        match name:
            case "deadline":
                job.deadline = job.deadline_over = job.watched = True
                self.run(self.client.hset(self.key("job", job.id), "deadline_ms", 1))
                self.run(self.client.zadd(self.key("deadlines"), {job.id: 1}))
            case "start_by":
                job.start_by_over = job.watched = True
                self.run(self.client.hset(self.key("job", job.id), "start_by_ms", 1))
                self.run(self.client.zadd(self.key("deadlines"), {job.id: 1}))
            case "pause" if job.paused and job.ever_claimed:
                job.paused_too_long, job.look_due = True, job.parked
                times: dict[Any, Any] = {"paused_ms": 1, "started_ms": 1, "parked_until_ms": 1}
                self.run(self.client.hset(self.key("job", job.id), mapping=times))
                self.run(self.client.zadd(self.key("parked"), {job.id: 1}, xx=True))
            case "client" if job.session:
                job.client_gone, job.look_due = True, job.parked
                self.run(self.client.delete(self.key("session", job.id)))
                self.run(self.client.zadd(self.key("parked"), {job.id: 1}, xx=True))

    @precondition(lambda self: any(job.ended for job in self.model.jobs.values()))
    @rule(data=st.data())
    def expire_record(self, data: st.DataObject) -> None:
        """The time of an ended job's record is over."""
        job = data.draw(st.sampled_from([job for job in self.model.jobs.values() if job.ended]), label="job")
        job.over = True
        account = job.account.id
        self.run(self.client.zadd(self.key("kept", account), {f"{account}:{job.id}": 1}, xx=True))
        self.run(self.client.zadd(self.key("expiring"), {account: 1}, xx=True))

    def kept(self, account: Account) -> list[str]:
        """Ended jobs of an account, the oldest end first: what only the clock knows."""
        entries = self.run(self.client.zrange(self.key("kept", account.id), 0, -1))
        return [entry.decode().partition(":")[2] for entry in entries]

    # ---- what must hold ----

    def compare(self, expected: str, call: Callable[[], Awaitable[str]], again: str | None = None) -> None:
        """The store answers as the model, twice, and the second time nothing changes."""
        assert self.run(_outcome(call)) == expected
        first = self.dump()
        self.check(first)
        assert self.run(_outcome(call)) == (expected if again is None else again)
        second = self.dump()
        assert _timeless(first) == _timeless(second)

    def key(self, *parts: str | int) -> str:
        """A key of the store."""
        return keys.Keys(NAMESPACE).of(*parts)

    def dump(self) -> Dump:
        """Everything in Redis: whether it expires, and its value, by key without the root."""
        root = keys.Keys(NAMESPACE).root
        found: Dump = {}
        for key, kind, expires, value in self.run(self.client.eval(DUMP, 0)):
            name = key.decode()
            assert name.startswith(root)
            if kind == b"hash":
                value = dict(zip(value[::2], value[1::2], strict=True))
            elif kind == b"zset":
                value = dict(zip(value[::2], map(float, value[1::2]), strict=True))
            elif kind == b"set":
                value = set(value)
            found[name.removeprefix(root)] = (bool(expires), value)
        return found

    def check(self, dump: Dump) -> None:
        """Redis holds what the model says, and everything goes away that is to go away."""
        found = {name: value for name, (_, value) in dump.items()}
        for job in self.model.jobs.values():
            _check_job(job, found)
        _check_queues(self.model, found)
        _check_sets(self.model, found)
        ended = {job.id for job in self.model.jobs.values() if job.ended} | self.model.forgotten
        for name, (expires, _) in dump.items():
            kind, _, rest = name.partition(":")
            if kind in ENDLESS:
                assert not expires, name
            elif kind in ("claim", "session", "share", "limits", "alone", "held", "video_ms"):
                assert expires, name
            else:
                owner = self.model.keys[rest] if kind == "idempotency" else rest.split(":")[0]
                assert expires == (owner in ended), name


def _check_job(job: ModelJob, found: dict[str, Any]) -> None:
    fields = {name.decode(): value.decode() for name, value in found[f"job:{job.id}"].items()}
    for name in (
        "state",
        "chunks_done",
        "chunks_total",
        "chunks_started",
        "first_chunk",
        "attempts",
        "losses",
        "token",
    ):
        assert fields[name] == str(getattr(job, name)), (job.id, name)
    assert fields.get("error_reason", "") == job.reason
    assert (fields["spec"] == fields["summary"]) == job.dropped
    assert ('"a lake"' in fields["spec"]) != job.dropped
    assert ("paused_ms" in fields, "stopping" in fields) == (job.paused, job.stopping)
    assert int(fields.get("chunks_read", 0)) == job.chunks_read
    assert ("ended_ms" in fields, "started_ms" in fields) == (job.ended, job.ever_claimed)
    assert int(fields["updates"]) == len(job.prompts) == len(found.get(f"prompts:{job.id}", ()))
    assert found.get(f"checkpoint:{job.id}") == job.checkpoint
    assert found.get(f"embeds:{job.id}", {}) == {key.encode(): data for key, data in job.embeds.items()}
    assert (f"session:{job.id}" in found) == (job.session and not job.client_gone)
    kept = range(job.first_chunk, job.chunks_done)
    numbers = [json.loads(entry.partition(b" ")[2])["index"] for entry in found.get(f"chunks:{job.id}", ())]
    assert numbers == list(kept)
    fragments = {name for name in found if name.startswith(f"fragment:{job.id}:")}
    assert fragments == {f"fragment:{job.id}:{index}" for index in kept}


def _check_queues(model: Model, found: dict[str, Any]) -> None:
    expected: dict[str, dict[bytes, float]] = {}
    for job in model.waiting():
        place = f"m:{job.priority}"
        for name in (f"queue:{place}", f"lane:{place}:{job.account.id}"):
            expected.setdefault(name, {})[job.id.encode()] = job.seq
        if model.in_line(job.account):
            expected.setdefault(f"lanes:{place}", {})[job.account.id.encode()] = model.share(job.account.id)
    barred = {job.account.id.encode() for job in model.waiting() if not model.in_line(job.account)}
    assert found.get("barred:m", set()) == barred
    kinds = ("queue", "lane", "lanes")
    assert {name: value for name, value in found.items() if name.partition(":")[0] in kinds} == expected
    shares = {name.decode(): float(value) for name, value in found.get("share:m", {}).items()}
    assert shares.pop(":clock", 0.0) == model.clock
    assert {name: share for name, share in shares.items() if share} == {
        name: share for name, share in model.shares.items() if share
    }


def _check_sets(model: Model, found: dict[str, Any]) -> None:
    jobs = model.jobs.values()
    for name, chosen in {
        "leases": [job for job in jobs if job.leased],
        "parked": [job for job in jobs if job.parked],
        "deadlines": [job for job in jobs if job.watched],
        "dead": [job for job in jobs if job.dead],
        "index": list(jobs),
    }.items():
        assert {member.decode() for member in found.get(name, ())} == {job.id for job in chosen}, name
    for worker in "xy":
        held = {job.id.encode() for job in jobs if job.leased and job.worker == worker}
        assert found.get(f"held:{worker}", set()) == held
    for account in ACCOUNTS:
        running = {job.id.encode() for job in jobs if job.leased and job.account == account}
        assert found.get(f"running:m:{account.id}", set()) == running
        own = {job.id: job for job in jobs if job.account == account}
        sizes = {job.id: job.record_bytes for job in own.values()}
        stored = {name.decode(): int(value) for name, value in found.get(f"storage:{account.id}", {}).items()}
        assert stored == (sizes | {":total": sum(sizes.values())} if sizes else {})
        assert sum(sizes.values()) <= JOBS.max_account_bytes
        left = model.left_output.get(account.id, {})
        made = {job.id: job.output_bytes for job in own.values() if job.output_bytes} | left
        counted = {name.decode(): int(value) for name, value in found.get(f"output:{account.id}", {}).items()}
        assert counted == (made | {":total": sum(made.values())} if made else {})
        expiring = {member.decode() for member in found.get(f"output_until:{account.id}", ())}
        assert expiring == {job.id for job in own.values() if job.ended and job.output_bytes} | set(left)
        assert (account.id.encode() in found.get("output_expiring", ())) >= bool(expiring)
        kept = {member.decode() for member in found.get(f"kept:{account.id}", ())}
        assert kept == {f"{account.id}:{job.id}" for job in own.values() if job.ended}
        assert (account.id.encode() in found.get("expiring", ())) >= bool(kept)
        dead = {member.decode() for member in found.get(f"tenant_dead:{account.id}", ())}
        assert dead == {job.id for job in own.values() if job.dead}
        assert {member.decode() for member in found.get(f"tenant:{account.id}", ())} == set(own)
        video = [int(value) for name, value in found.items() if name.startswith(f"video_ms:{account.id}:")]
        assert sum(video) == model.video_ms.get(account.id, 0)
    assert {state.decode(): int(count) for state, count in found.get("ended", {}).items()} == model.ended
    assert set(model.ended) <= set(FINAL)
    assert {name.partition(":")[2]: value.decode() for name, value in found.items() if "idempotency:" in name} == (
        model.keys
    )


def _timeless(dump: Dump) -> Dump:
    """Without what a repetition may change: the times of leases and of looks, and the count of changes."""
    kept = {name: value for name, value in dump.items() if name != "layout"}
    for name, (expires, value) in dump.items():
        if name in ("leases", "parked"):
            kept[name] = (expires, set(value))
        elif name.startswith("job:"):
            kept[name] = (expires, {field: text for field, text in value.items() if field != b"revision"})
    return kept


async def _awaited(call: Awaitable[Any]) -> Any:
    return await call


async def _ok(call: Awaitable[Any]) -> str:
    await call
    return "ok"


async def _verdict(store: JobStore, lease: Lease, index: int) -> str:
    return str((await store.begin_chunk(lease, index, 0)).verdict)


async def _append(store: JobStore, lease: Lease, index: int) -> None:
    checkpoint = b"state %d" % (index + 1)
    await store.append_chunk(lease, record(index), b"f", init_segment=b"init", checkpoint=checkpoint)


async def _outcome(call: Callable[[], Awaitable[str]]) -> str:
    try:
        return await call()
    except (JobStoreError, ValueError) as error:
        return type(error).__name__


@pytest.mark.timeout(3600 if EXAMPLES else 900)
def test_the_scripts_do_what_the_model_says(redis: RedisConfig) -> None:
    url = re.sub(r"(/|db=)0$", rf"\g<1>{DATABASE}", redis.url)
    with asyncio.Runner() as runner:
        client = async_client(url)
        machine = type("Machine", (StoreMachine,), {"runner": runner, "client": client, "url": url})
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=EXAMPLES or 100,
                    stateful_step_count=STEPS,
                    derandomize=not EXAMPLES,
                    database=None,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(client.aclose())
