"""What clients and operators do in a random history."""

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from helios_engine.prompts import ScheduledPrompt
from helios_services.jobs.charge import charge_of
from helios_services.jobs.codec import stored_json, summary_json
from helios_services.jobs.records import Account, Control, Priority
from helios_services.jobs.state import JobState
from services.jobs.conftest import spec
from services.jobs.model.job import ModelJob
from services.jobs.model.machine import StoreMachine, ok
from services.jobs.model.small_store import ACCOUNTS, FAR_S

WORK: tuple[dict[str, Any], ...] = (
    {},
    {"height": 768},
    {"fps": 120, "pyramid_steps": [1, 1, 4], "guidance_scale": 1.0, "amplify_first_chunk": True},
)
"""What makes a job's chunks cost more or less."""


class ClientRules(StoreMachine):
    """The calls of clients and operators."""

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
        self.compare(self.model.cancel(job), lambda: ok(self.store.cancel(job.id)))

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data(), action=st.sampled_from(Control))
    def control(self, data: st.DataObject, action: Control) -> None:
        """A client pauses, resumes or stops."""
        job = self.job(data)
        self.compare(self.model.control(job, action), lambda: ok(self.store.control(job.id, action)))

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
        self.compare(self.model.read(job, count), lambda: ok(self.store.chunks_read(job.id, count)))

    @precondition(lambda self: any(job.session for job in self.model.jobs.values()))
    @rule(data=st.data())
    def keep_session(self, data: st.DataObject) -> None:
        """A session's client gives a sign of life."""
        job = self.job(data)
        self.compare(self.model.keep_session(job), lambda: ok(self.store.keep_session(job.id)))

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
        self.compare(expected, lambda: ok(ask(job.id, nonce)))
