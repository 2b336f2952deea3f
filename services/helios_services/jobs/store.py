"""The job store: every change of a job is one Lua script in Redis, and every script may be repeated.

A reply can be lost after the change was made, so the client repeats a call that failed on the wire; each script
recognises its own repetition and answers as it did the first time.
"""

import hashlib
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from helios_engine.prompts import ScheduledPrompt
from helios_services.config import JobsConfig, RedisConfig
from helios_services.jobs.codec import (
    chunk_from_entry,
    chunk_to_json,
    job_from_hash,
    media_from_hash,
    prompt_from_entry,
    spec_to_json,
)
from helios_services.jobs.connection import connection_options
from helios_services.jobs.errors import (
    ChunkGone,
    IdempotencyConflict,
    InvalidTransition,
    JobNotFound,
    JobStoreError,
    LeaseLost,
    MediaFull,
    MediaNotFound,
    NoChunkLeft,
    NotContinuable,
    PromptsFull,
    QueueFull,
    SessionEnded,
    StorageFull,
)
from helios_services.jobs.keys import Keys
from helios_services.jobs.records import (
    ChunkRecord,
    Claim,
    Control,
    Job,
    JobFailure,
    JobPage,
    JobSpec,
    Lease,
    Media,
    Priority,
    Verdict,
)
from helios_services.jobs.scripts import source
from helios_services.jobs.state import JobState
from helios_services.jobs.work import JOBS_COUNTED, Pace, Work, work_from_answer

PRIORITIES = ",".join(Priority)
MAX_CONNECTIONS = 64
"""Per store; calls beyond wait for a connection, at most `socket_timeout_s`, rather than fail at once."""
RECORDS_AT_ONCE = 64
"""Chunk records read per round trip."""
SCAN_PAGE = 200
"""Index entries looked at per round trip while listing."""


class JobStore:
    """Jobs in Redis. Refusals raise JobStoreError subclasses; connection trouble raises redis' RedisError."""

    def __init__(self, client: Redis, redis: RedisConfig, jobs: JobsConfig) -> None:
        self._client: Any = client  # redis-py's types leave open whether replies are bytes
        self._jobs = jobs
        self._keys = Keys(redis.namespace)
        self._ttls = (int(jobs.job_ttl_s * 1000), int(jobs.chunk_ttl_s * 1000))
        self._scripts: dict[str, Any] = {}

    @classmethod
    def connect(cls, redis: RedisConfig, jobs: JobsConfig) -> "JobStore":
        """A store on `redis.url`; connects on first use. Raises ConfigError for credentials that cannot be used."""
        pool = BlockingConnectionPool.from_url(
            redis.url,
            max_connections=MAX_CONNECTIONS,
            timeout=redis.socket_timeout_s,
            socket_timeout=redis.socket_timeout_s,
            socket_connect_timeout=redis.socket_timeout_s,
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), 2, (RedisConnectionError, RedisTimeoutError)),
            health_check_interval=15,
            **connection_options(redis),
        )
        return cls(Redis.from_pool(pool), redis, jobs)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    # ---- producers ----

    async def submit(self, job_id: str, spec: JobSpec, *, idempotency_key: str = "", trace: str = "") -> Job:
        """Queues a job. Raises QueueFull, StorageFull, IdempotencyConflict, NotContinuable or MediaNotFound."""
        text = spec_to_json(spec)
        digest = hashlib.sha256(text.encode()).hexdigest()
        args = (job_id, text, digest, spec.model, spec.priority, spec.chunks_total)
        try:
            answer = await self._run(
                "submit",
                *args,
                idempotency_key,
                self._jobs.max_queued,
                PRIORITIES,
                spec.continue_from,
                int(self._jobs.session_grace_s * 1000) if spec.session else 0,
                self._ttls[0],
                trace,
                *spec.media_ids,
            )
        except OutOfMemoryError:
            raise StorageFull("the job store is out of memory", retry_after_s=30.0) from None
        if answer[0] == "full":
            raise QueueFull(f"the queue of {spec.model} is full: {answer[1]} jobs are waiting", retry_after_s=5.0)
        if answer[0] == "conflict":
            raise IdempotencyConflict(f"idempotency_key {idempotency_key!r} was used with another request")
        if answer[0] == "gone":
            raise NotContinuable(f"job {answer[1]!r} can no longer be continued: its last state is not kept")
        if answer[0] == "no_media":
            raise MediaNotFound(f"media {answer[1]!r} does not exist or has expired")
        return await self.get(answer[1])

    async def get(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        fields = await self._client.hgetall(self._keys.of("job", job_id))
        if not fields:
            raise JobNotFound(f"job {job_id!r} does not exist or has expired")
        updated = int(fields.get(b"updates", 0)) > 0
        updates = await self._client.lrange(self._keys.of("prompts", job_id), 0, -1) if updated else ()
        return job_from_hash(job_id, fields, updates)

    async def page(
        self,
        *,
        limit: int,
        cursor: str = "",
        states: Collection[JobState] = (),
        model: str = "",
        tenant: str | None = None,
    ) -> JobPage:
        """Jobs, newest first, that are in one of `states` (any if empty), without their prompt updates.

        tenant: whose jobs (None: everybody's).
        Raises ValueError for a bad cursor.
        """
        if cursor and not (cursor.isascii() and cursor.isdigit()):
            raise ValueError(f"cursor: {cursor!r} is not one that this store gave")
        jobs: list[Job] = []
        last, below = 0, f"({cursor}" if cursor else "+inf"
        while True:
            entries = await self._client.zrevrangebyscore(
                self._keys.of("index"), below, "-inf", start=0, num=SCAN_PAGE, withscores=True
            )
            async with self._client.pipeline(transaction=False) as pipeline:
                for job_id, _ in entries:
                    pipeline.hgetall(self._keys.of("job", job_id.decode()))
                records = await pipeline.execute()
            for (job_id, seq), fields in zip(entries, records, strict=True):
                job = job_from_hash(job_id.decode(), fields) if fields else None
                visible = job is not None and tenant in (None, job.spec.tenant)
                if job and visible and (not states or job.state in states) and model in ("", job.spec.model):
                    if len(jobs) == limit:
                        return JobPage(jobs=jobs, next_cursor=str(last))
                    jobs.append(job)
                last = int(seq)
            if len(entries) < SCAN_PAGE:
                return JobPage(jobs=jobs, next_cursor="")
            below = f"({last}"

    async def cancel(self, job_id: str) -> Job:
        """Cancels at once, in any state but succeeded and failed. Raises JobNotFound, InvalidTransition."""
        self._check(job_id, await self._run("cancel", job_id, *self._ttls))
        return await self.get(job_id)

    async def update_prompt(self, job_id: str, update: ScheduledPrompt, nonce: str) -> int:
        """Changes the prompt from chunk `update.chunk_index` on, or the next that has not started: that chunk.

        The same nonce again gives the same answer. Raises JobNotFound, InvalidTransition, NoChunkLeft, PromptsFull,
        StorageFull.
        """
        parts = (nonce, update.chunk_index, update.interpolation_chunks, update.prompt, self._jobs.max_prompt_updates)
        try:
            answer = await self._run("update_prompt", job_id, *parts)
        except OutOfMemoryError:
            raise StorageFull("the job store is out of memory", retry_after_s=30.0) from None
        self._check(job_id, answer)
        return int(float(answer[1]))

    async def control(self, job_id: str, action: Control) -> Job:
        """Pauses, resumes or stops a job. Raises JobNotFound, InvalidTransition."""
        self._check(job_id, await self._run("control", job_id, action))
        return await self.get(job_id)

    async def keep_session(self, job_id: str) -> None:
        """A sign of life of the session's client. Raises JobNotFound; SessionEnded when it comes too late."""
        self._check(job_id, await self._run("keep_session", job_id, int(self._jobs.session_grace_s * 1000)))

    async def add_media(self, media: Media, *, ttl_s: float, max_files: int) -> list[str]:
        """Records an upload (`media.expire_s` is set here). Returns names of files that have expired, to be deleted.

        Raises MediaFull, StorageFull.
        """
        parts = (media.id, media.name, media.content_type, media.size_bytes, int(ttl_s * 1000), max_files, media.tenant)
        try:
            answer = await self._run("add_media", *parts)
        except OutOfMemoryError:
            raise StorageFull("the job store is out of memory", retry_after_s=30.0) from None
        if answer[0] == "full":
            raise MediaFull(f"{answer[1]} uploads are kept, which is all there may be", retry_after_s=60.0)
        return answer[1:]

    async def forget_media(self, names: Sequence[str]) -> None:
        """These files are not kept (any more)."""
        await self._run("forget_media", *names)

    async def media(self, media_id: str) -> Media:
        """Raises MediaNotFound."""
        fields = await self._client.hgetall(self._keys.of("media", media_id))
        if not fields:
            raise MediaNotFound(f"media {media_id!r} does not exist or has expired")
        return media_from_hash(media_id, fields)

    # ---- workers ----

    async def claim(self, model: str, worker_id: str, nonce: str) -> Claim | None:
        """Takes the next job, after taking lapsed leases away. The same nonce again gives the same answer."""
        lease_ms, attempts = int(self._jobs.lease_s * 1000), self._jobs.max_attempts
        answer = await self._run("claim", model, worker_id, nonce, lease_ms, attempts, *self._ttls, PRIORITIES)
        if answer[0] == "none":
            return None
        _, job_id, token, waited_ms = answer
        async with self._client.pipeline(transaction=False) as pipeline:
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

    async def begin_chunk(self, lease: Lease, index: int, known: int) -> tuple[Verdict, list[ScheduledPrompt]]:
        """Whether to make chunk `index` now, and the prompt updates beyond the first `known`. Raises LeaseLost.

        From here on, the chunk has started: later prompt updates take effect after it.
        """
        limit_ms = int(self._jobs.pause_limit_s * 1000)
        answer = await self._run("begin", lease.job_id, lease.token, index, known, limit_ms)
        if answer[0] not in tuple(Verdict):
            _refuse(lease.job_id, answer)
        return Verdict(answer[0]), [prompt_from_entry(entry.encode()) for entry in answer[1:]]

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

    async def reclaim(self) -> list[str]:
        """Takes lapsed leases away; the jobs' ids. `claim` does the same."""
        _, *job_ids = await self._run("reclaim", self._jobs.max_attempts, *self._ttls)
        return job_ids

    # ---- delivery ----

    async def chunk_records(self, job: Job, start: int = 0) -> list[ChunkRecord]:
        """The chunk log from `start` on, a bounded number; empty once it has expired.

        Of an open-ended job, the first may be later than `start`, if older ones have just been dropped.
        """
        offset = max(start - job.first_chunk, 0)
        entries = await self._client.lrange(self._keys.of("chunks", job.id), offset, offset + RECORDS_AT_ONCE - 1)
        return [record for record in map(chunk_from_entry, entries) if record.index >= start]

    async def fragment(self, job_id: str, index: int) -> bytes:
        """The chunk's fMP4 fragment. Raises ChunkGone."""
        return await self._bytes("fragment", job_id, index)

    async def init_segment(self, job_id: str) -> bytes:
        """The fMP4 init segment. Raises ChunkGone."""
        return await self._bytes("init", job_id)

    async def depths(self, model: str) -> dict[Priority, int]:
        """Queued jobs by priority."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for priority in Priority:
                pipeline.zcard(self._keys.of("queue", model, priority))
            return dict(zip(Priority, await pipeline.execute(), strict=True))

    async def work(self, model: str, measured: Sequence[Pace] = ()) -> Work:
        """What there is to do, and how fast chunks are made; `measured` goes into that."""
        pace = [part for pace in measured for part in (pace.stage, pace.chunks, f"{pace.seconds:.6f}")]
        return work_from_answer(await self._run("work", model, JOBS_COUNTED, PRIORITIES, self._ttls[0], *pace))

    async def ended(self) -> dict[JobState, int]:
        """Jobs ended since the store began, by final state: exact, whichever processes died."""
        counts = await self._client.hgetall(self._keys.of("ended"))
        return {JobState(state.decode()): int(count) for state, count in counts.items()}

    # ---- plumbing ----

    async def _finish(self, lease: Lease, event: str, *fields: str | int) -> Job:
        answer = await self._run("finish", lease.job_id, lease.token, event, *self._ttls, *fields)
        self._check(lease.job_id, answer)
        return await self.get(lease.job_id)

    async def _bytes(self, *parts: str | int) -> bytes:
        data: bytes | None = await self._client.get(self._keys.of(*parts))
        if data is None:
            raise ChunkGone(f"{' '.join(map(str, parts))} is not kept (any more)")
        return data

    async def _run(self, name: str, *args: str | int | bytes) -> list[str]:
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self._client.register_script(source(name))
        try:
            answer = await script(keys=[self._keys.root], args=args)
        except ResponseError as error:
            if str(error).startswith("OOM") or "OOM command not allowed" in str(error):
                raise OutOfMemoryError(str(error)) from None
            raise
        return [part.decode() if isinstance(part, bytes) else str(part) for part in answer]

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
        case ["lapsed" | "no_session"]:
            raise SessionEnded(f"job {job_id!r} has no live session (any more)")
        case ["gap", done]:
            raise ValueError(f"job {job_id!r}: {done} chunks are done, the call does not continue there")
    raise JobStoreError(f"job {job_id!r}: unexpected answer {answer!r}")
