"""The job store: every change of a job is one Lua script in Redis, and every script may be repeated.

A reply can be lost after the change was made, so the client repeats a call that failed on the wire; each script
recognises its own repetition and answers as it did the first time.
"""

import hashlib
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from redis.asyncio import Redis, RedisCluster

from helios_engine.prompts import ScheduledPrompt
from helios_services.config import JobsConfig, RedisConfig
from helios_services.jobs.codec import chunk_to_json, job_from_hash, prompt_from_entry, spec_to_json, terms_to_json
from helios_services.jobs.connect import answered
from helios_services.jobs.errors import (
    IdempotencyConflict,
    InvalidTransition,
    JobNotFound,
    JobStoreError,
    LeaseLost,
    MediaFull,
    MediaNotFound,
    NoChunkLeft,
    NotContinuable,
    NotDeadLettered,
    PromptsFull,
    QueueFull,
    QuotaExceeded,
    SessionEnded,
)
from helios_services.jobs.reader import JobReader
from helios_services.jobs.records import (
    NOBODY,
    Account,
    ChunkRecord,
    Claim,
    Control,
    DueWebhook,
    Job,
    JobFailure,
    JobSpec,
    Lease,
    Media,
    Priority,
    Start,
    Verdict,
)
from helios_services.jobs.scripts import source
from helios_services.jobs.work import JOBS_COUNTED, Pace, Work, work_from_answer

EVERY_RANK = len(Priority)


class JobStore(JobReader):
    """Jobs in Redis. Refusals raise subclasses of JobStoreError; any call may raise StoreUnavailable or StorageFull."""

    def __init__(self, client: Redis | RedisCluster, redis: RedisConfig, jobs: JobsConfig) -> None:
        super().__init__(client, redis.namespace)
        self._jobs = jobs
        self._ttls = (int(jobs.job_ttl_s * 1000), int(jobs.chunk_ttl_s * 1000))
        self._scripts: dict[str, Any] = {}

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    # ---- producers ----

    async def submit(
        self,
        job_id: str,
        spec: JobSpec,
        *,
        account: Account = NOBODY,
        idempotency_key: str = "",
        trace: str = "",
        within_s: float | None = None,
    ) -> Job:
        """Queues a job. within_s: the call's own deadline, of which a repetition of the call has another.

        Raises QueueFull, QuotaExceeded, IdempotencyConflict, NotContinuable or MediaNotFound.
        """
        text = spec_to_json(spec)
        digest = hashlib.sha256(text.encode()).hexdigest()
        args = (job_id, text, digest, spec.model, spec.priority, spec.chunks_total)
        answer, record = await self._run_with_record(
            "submit",
            *args,
            idempotency_key,
            self._jobs.max_queued,
            spec.continue_from,
            int(self._jobs.session_grace_s * 1000) if spec.session else 0,
            self._ttls[0],
            trace,
            terms_to_json(spec, account, within_s),
            *spec.media_ids,
        )
        match answer:
            case ["ok", existing]:
                return job_from_hash(existing, record) if record else await self.get(existing)
            case ["full", count]:
                raise QueueFull(f"the queue of {spec.model} is full: {count} jobs are waiting", retry_after_s=5.0)
            case ["quota", limit, value, ""]:
                message = f"{limit} of this API key's account is {float(value):g}, and the job alone is more"
                raise QuotaExceeded(message, limit=limit, retry_after_s=None)
            case ["quota", limit, value, retry_ms]:
                message = f"{limit} of this API key's account is {float(value):g}, and is used up"
                raise QuotaExceeded(message, limit=limit, retry_after_s=int(retry_ms) / 1000)
            case ["conflict", _]:
                raise IdempotencyConflict(f"idempotency_key {idempotency_key!r} was used with another request")
            case ["gone", parent]:
                raise NotContinuable(f"job {parent!r} can no longer be continued: its last state is not kept")
            case ["no_media", media_id]:
                raise MediaNotFound(f"media {media_id!r} does not exist or has expired")
        raise JobStoreError(f"job {job_id!r}: unexpected answer {answer!r}")

    async def cancel(self, job_id: str) -> Job:
        """Cancels at once, in any state but succeeded and failed. Raises JobNotFound, InvalidTransition."""
        self._check(job_id, await self._run("cancel", job_id, *self._ttls))
        return await self.get(job_id)

    async def update_prompt(self, job_id: str, update: ScheduledPrompt, nonce: str) -> int:
        """Changes the prompt from chunk `update.chunk_index` on, or the next that has not started: that chunk.

        The same nonce again gives the same answer. Raises JobNotFound, InvalidTransition, NoChunkLeft, PromptsFull.
        """
        parts = (nonce, update.chunk_index, update.interpolation_chunks, update.prompt, self._jobs.max_prompt_updates)
        answer = await self._run("update_prompt", job_id, *parts)
        self._check(job_id, answer)
        return int(float(answer[1]))

    async def control(self, job_id: str, action: Control) -> Job:
        """Pauses, resumes or stops a job. Raises JobNotFound, InvalidTransition."""
        self._check(job_id, await self._run("control", job_id, action))
        return await self.get(job_id)

    async def keep_session(self, job_id: str) -> None:
        """A sign of life of the session's client. Raises JobNotFound; SessionEnded when it comes too late."""
        self._check(job_id, await self._run("keep_session", job_id, int(self._jobs.session_grace_s * 1000)))

    async def chunks_read(self, job_id: str, count: int) -> None:
        """The session's client has been sent the first `count` chunks."""
        await self._run("read", job_id, count, self._jobs.live_window_chunks)

    async def requeue(self, job_id: str, nonce: str) -> Job:
        """Queues a dead letter again; it goes on after its last chunk. The same nonce again gives the same answer.

        Raises JobNotFound, NotDeadLettered.
        """
        self._check(job_id, await self._run("requeue", job_id, nonce))
        return await self.get(job_id)

    async def purge(self, job_id: str, nonce: str) -> Job:
        """Gives up a dead letter. The same nonce again gives the same answer. Raises JobNotFound, NotDeadLettered."""
        self._check(job_id, await self._run("purge", job_id, nonce, self._ttls[1]))
        return await self.get(job_id)

    async def due_webhook(self, nonce: str, *, lease_s: float, busy: Collection[str] = ()) -> DueWebhook | None:
        """The next webhook that is to be called now; nobody else is given it for `lease_s`.

        busy: lanes of which none is wanted. The same nonce again gives the same answer.
        """
        answer = await self._run("due_webhook", nonce, int(lease_s * 1000), *busy)
        if answer[0] == "none":
            return None
        _, event, job_id, tries, lane = answer
        return DueWebhook(event=event, job_id=job_id, tries=int(tries), lane=lane)

    async def settle_webhook(self, due: DueWebhook, *, again_in_s: float | None = None) -> None:
        """The webhook was called. again_in_s: it is to be called again (None: no more)."""
        await self._run("settle_webhook", due.event, due.lane, "" if again_in_s is None else int(again_in_s * 1000))

    async def reserve_media(
        self, name: str, size_bytes: int, *, lease_s: float, max_files: int, account: Account
    ) -> list[str]:
        """Keeps a place for an upload of at most `size_bytes`, for `lease_s`. max_files: of all accounts together.

        Returns names of files that have expired, to be deleted. Raises MediaFull, QuotaExceeded, StorageFull.
        """
        of_account = (account.max_uploads or 0, account.max_upload_bytes or 0)
        answer = await self._run(
            "reserve_media", name, account.id, size_bytes, int(lease_s * 1000), max_files, *of_account
        )
        match answer:
            case ["full", count]:
                raise MediaFull(f"{count} uploads are kept, which is all there may be", retry_after_s=60.0)
            case ["quota", limit, value]:
                message = f"{limit} of this API key's account is {int(value):,}, and is used up"
                raise QuotaExceeded(message, limit=limit, retry_after_s=60.0)
        return answer[1:]

    async def add_media(self, media: Media, *, ttl_s: float, account: Account = NOBODY) -> None:
        """Records an upload that has arrived at its place (`media.expire_s` is set here).

        Raises MediaNotFound when the place was not kept for so long; StorageFull.
        """
        parts = (media.id, media.name, media.content_type, media.size_bytes, int(ttl_s * 1000))
        if (await self._run("add_media", *parts, media.tenant, account.id))[0] == "lapsed":
            raise MediaNotFound(f"media {media.id!r} has taken too long to arrive")

    async def forget_media(self, names: Sequence[str], account: Account = NOBODY) -> None:
        """These files are not kept (any more). account: whose, of such as have no record."""
        await self._run("forget_media", account.id, *names)

    # ---- workers ----

    async def claim(self, model: str, worker_id: str, nonce: str, *, interactive_only: bool = False) -> Claim | None:
        """Takes the next job, after a sweep. The same nonce again gives the same answer."""
        lease_ms, attempts = int(self._jobs.lease_s * 1000), self._jobs.max_attempts
        ranks = 1 if interactive_only else EVERY_RANK
        answer = await self._run("claim", model, worker_id, nonce, lease_ms, attempts, *self._ttls, ranks)
        if answer[0] == "none":
            return None
        _, job_id, token, waited_ms = answer
        async with self._pipeline() as pipeline:
            pipeline.get(self._keys.of("checkpoint", job_id))
            pipeline.hgetall(self._keys.of("embeds", job_id))
            checkpoint, prompt_embeds = await pipeline.execute()
        return Claim(
            lease=Lease(job_id=job_id, token=int(token), worker_id=worker_id),
            job=await self.get(job_id),
            checkpoint=checkpoint,
            prompt_embeds={key.decode(): data for key, data in prompt_embeds.items()},
            queue_wait_s=int(waited_ms) / 1000,
        )

    async def begin_chunk(self, lease: Lease, index: int, known: int) -> Start:
        """Whether to make chunk `index` now, and the prompt updates beyond the first `known`. Raises LeaseLost.

        From a GO on, the chunk has started: later prompt updates take effect after it, and the account has had it.
        """
        jobs = self._jobs
        parts = (int(jobs.pause_limit_s * 1000), jobs.live_window_chunks, jobs.fair_quantum_chunks, self._ttls[0])
        answer = await self._run("begin", lease.job_id, lease.token, index, known, *parts)
        if answer[0] not in tuple(Verdict):
            _refuse(lease.job_id, answer)
        verdict = Verdict(answer[0])
        if verdict is not Verdict.GO:
            return Start(verdict=verdict)
        _, left_ms, *updates = answer
        return Start(
            verdict=verdict,
            prompt_updates=tuple(prompt_from_entry(entry.encode()) for entry in updates),
            left_s=float(left_ms) / 1000 if left_ms else None,
        )

    async def give_way(self, lease: Lease) -> bool:
        """Gives the job back to the queue if another should have its worker. Raises LeaseLost.

        All chunks made must have been appended. False: the job may keep its worker.
        """
        return await self._unless_kept(lease, "give_way", self._jobs.fair_quantum_chunks)

    async def park(self, lease: Lease) -> bool:
        """Sets a job aside that waits for its client. Raises LeaseLost. False: it need not wait (any more)."""
        parts = (int(self._jobs.pause_limit_s * 1000), self._jobs.live_window_chunks)
        return await self._unless_kept(lease, "park", *parts)

    async def append_chunk(
        self, lease: Lease, record: ChunkRecord, fragment: bytes, *, init_segment: bytes, checkpoint: bytes
    ) -> None:
        """Adds the next chunk and its checkpoint in one change. Raises LeaseLost; ValueError for a wrong index."""
        lease_ms = int(self._jobs.lease_s * 1000)
        window = self._jobs.live_window_chunks
        parts = (record.index, chunk_to_json(record), fragment, init_segment, checkpoint, lease_ms, window)
        self._check(lease.job_id, await self._run("append", lease.job_id, lease.token, *parts))

    async def save_prompt_embeds(self, lease: Lease, key: str, data: bytes, *, keep: Collection[str]) -> None:
        """Keeps a prompt's embedding for resumptions, and of the others those in `keep`. Raises LeaseLost."""
        self._check(lease.job_id, await self._run("save_prompt", lease.job_id, lease.token, key, data, *keep))

    async def begin_publish(self, lease: Lease) -> None:
        """All chunks are there. Raises LeaseLost; ValueError when some are not."""
        self._check(lease.job_id, await self._run("publish", lease.job_id, lease.token))

    async def succeed(self, lease: Lease, *, artifact: str, video_bytes: int) -> Job:
        """Ends the job well. Raises LeaseLost."""
        return await self._finish(lease, "succeed", "artifact", artifact, "video_bytes", video_bytes)

    async def fail(self, lease: Lease, failure: JobFailure) -> Job:
        """Ends the job badly. Raises LeaseLost."""
        return await self._finish(lease, "fail", "error_reason", failure.reason, "error_message", failure.message)

    async def release(self, lease: Lease) -> None:
        """Gives the job back to the queue at its old place; does not count as an attempt. Raises LeaseLost."""
        self._check(lease.job_id, await self._run("release", lease.job_id, lease.token))

    async def sweep(self) -> list[str]:
        """What time alone brings about, as `claim` does it: lapsed leases are taken away, deadlines kept.

        Returns the ids of jobs whose lease had lapsed.
        """
        _, *job_ids = await self._run("sweep", self._jobs.max_attempts, *self._ttls)
        return job_ids

    async def work(self, model: str, measured: Sequence[Pace] = ()) -> Work:
        """What there is to do, and how fast chunks are made; `measured` goes into that."""
        pace = [part for pace in measured for part in (pace.stage, pace.chunks, f"{pace.seconds:.6f}")]
        return work_from_answer(await self._run("work", model, JOBS_COUNTED, self._ttls[0], *pace))

    # ---- plumbing ----

    async def _finish(self, lease: Lease, event: str, *fields: str | int) -> Job:
        answer = await self._run("finish", lease.job_id, lease.token, event, *self._ttls, *fields)
        self._check(lease.job_id, answer)
        return await self.get(lease.job_id)

    async def _unless_kept(self, lease: Lease, script: str, *parts: int | float) -> bool:
        answer = await self._run(script, lease.job_id, lease.token, *parts)
        if answer == ["kept"]:
            return False
        self._check(lease.job_id, answer)
        return True

    async def _run(self, name: str, *args: str | int | float | bytes) -> list[str]:
        answer, _ = await self._run_with_record(name, *args)
        return answer

    async def _run_with_record(
        self, name: str, *args: str | int | float | bytes
    ) -> tuple[list[str], dict[bytes, bytes]]:
        """A script's answer, and the hash that it may have at its end."""
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self._client.register_script(source(name))
        with answered():
            answer = await script(keys=[self._keys.root], args=args)
        flat = answer.pop() if answer and isinstance(answer[-1], list) else []
        record = dict(zip(flat[::2], flat[1::2], strict=True))
        return [part.decode() if isinstance(part, bytes) else str(part) for part in answer], record

    @staticmethod
    def _check(job_id: str, answer: list[str]) -> None:
        if answer[0] != "ok":
            _refuse(job_id, answer)


def _refuse(job_id: str, answer: list[str]) -> NoReturn:
    match answer:
        case ["not_found"]:
            raise JobNotFound(f"job {job_id!r} does not exist or has expired")
        case ["lease_lost"]:
            raise LeaseLost(f"job {job_id!r}: the lease is gone")
        case ["invalid", state]:
            raise InvalidTransition(f"job {job_id!r} is {state}", state=state)
        case ["late", total]:
            raise NoChunkLeft(f"job {job_id!r} has no chunk left that has not started (it has {total})")
        case ["full", count]:
            raise PromptsFull(f"job {job_id!r}: its prompt was changed {count} times, which is all it may be")
        case ["not_dead", state]:
            raise NotDeadLettered(f"job {job_id!r} is {state}, and no dead letter")
        case ["lapsed" | "no_session"]:
            raise SessionEnded(f"job {job_id!r} has no live session (any more)")
        case ["gap", done]:
            raise ValueError(f"job {job_id!r}: {done} chunks are done, the call does not continue there")
    raise JobStoreError(f"job {job_id!r}: unexpected answer {answer!r}")
