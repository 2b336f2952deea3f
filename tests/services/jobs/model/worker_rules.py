"""What workers do in a random history."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from helios_services.jobs.records import JobFailure, Lease
from helios_services.jobs.state import Event, JobState
from helios_services.jobs.store import JobStore
from helios_services.jobs.worker_calls import EVERY_RANK
from services.jobs.conftest import record
from services.jobs.model.machine import StoreMachine, ok
from services.jobs.model.small_store import JOBS

REASONS = ("GENERATION_FAILED", "INVALID_REQUEST")


class WorkerRules(StoreMachine):
    """The calls of workers."""

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
        self.compare(self.model.append(job, lease.token, index), lambda: ok(_append(self.store, lease, index)))

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
            self.compare(expected, lambda index=index: ok(_append(self.store, lease, index)))  # type: ignore[misc]

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), key=st.sampled_from("xyz"), keep=st.sampled_from([(), ("x",), ("x", "y")]))
    def save_embeds(self, data: st.DataObject, key: str, keep: tuple[str, ...]) -> None:
        """A worker keeps an embedding."""
        lease, job = self.held(data)
        expected = self.model.save_embeds(job, lease.token, key, keep)
        self.compare(expected, lambda: ok(self.store.save_prompt_embeds(lease, key, b"embedding", keep=keep)))

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
            self.compare(self.model.publish(job, lease.token), lambda: ok(self.store.begin_publish(lease)))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        """A worker has published the video."""
        lease, job = self.held(data)
        expected = self.model.finish(job, lease.token, Event.SUCCEED)
        self.compare(expected, lambda: ok(self.store.succeed(lease, artifact="a.mp4", video_bytes=7)))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), reason=st.sampled_from(REASONS))
    def fail(self, data: st.DataObject, reason: str) -> None:
        """A worker cannot go on."""
        lease, job = self.held(data)
        expected = self.model.finish(job, lease.token, Event.FAIL, reason)
        self.compare(expected, lambda: ok(self.store.fail(lease, JobFailure(reason=reason, message="why"))))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), why=st.sampled_from(["release", "give_way", "park"]))
    def give_back(self, data: st.DataObject, why: str) -> None:
        """A worker gives a job back."""
        lease, job = self.held(data)
        call = {"release": self.store.release, "give_way": self.store.give_way, "park": self.store.park}[why]

        async def given() -> str:
            return "kept" if await call(lease) is False else "ok"

        self.compare(self.model.give_back(job, lease.token, why), given)


async def _verdict(store: JobStore, lease: Lease, index: int) -> str:
    return str((await store.begin_chunk(lease, index, 0)).verdict)


async def _append(store: JobStore, lease: Lease, index: int) -> None:
    checkpoint = b"state %d" % (index + 1)
    await store.append_chunk(lease, record(index), b"f", init_segment=b"init", checkpoint=checkpoint)
