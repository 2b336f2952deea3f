"""The job store: every change of a job is one Lua script in Redis, and every script may be repeated.

A reply can be lost after the change was made, so the client repeats a call that failed on the wire; each script
recognises its own repetition and answers as it did the first time.
"""

import hashlib
from collections.abc import Collection
from typing import Any, NoReturn

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from helios_services.config import JobsConfig, RedisConfig
from helios_services.jobs.codec import chunk_from_entry, chunk_to_json, job_from_hash, spec_to_json
from helios_services.jobs.errors import (
    ChunkGone,
    IdempotencyConflict,
    InvalidTransition,
    JobNotFound,
    JobStoreError,
    LeaseLost,
    QueueFull,
    StorageFull,
)
from helios_services.jobs.keys import Keys
from helios_services.jobs.records import ChunkRecord, Claim, Job, JobFailure, JobPage, JobSpec, Lease, Priority
from helios_services.jobs.scripts import source
from helios_services.jobs.state import JobState

PRIORITIES = ",".join(Priority)
MAX_CONNECTIONS = 64
"""Per store; calls beyond wait for a connection, at most `socket_timeout_s`, rather than fail at once."""
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
        """A store on `redis.url`; connects on first use."""
        pool = BlockingConnectionPool.from_url(
            redis.url,
            max_connections=MAX_CONNECTIONS,
            timeout=redis.socket_timeout_s,
            socket_timeout=redis.socket_timeout_s,
            socket_connect_timeout=redis.socket_timeout_s,
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), 2, (RedisConnectionError, RedisTimeoutError)),
            health_check_interval=15,
        )
        return cls(Redis.from_pool(pool), redis, jobs)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    # ---- producers ----

    async def submit(self, job_id: str, spec: JobSpec, *, idempotency_key: str = "") -> Job:
        """Queues a job. Raises QueueFull, StorageFull or IdempotencyConflict."""
        text = spec_to_json(spec)
        digest = hashlib.sha256(text.encode()).hexdigest()
        args = (job_id, text, digest, spec.model, spec.priority, spec.chunks_total)
        try:
            answer = await self._run("submit", *args, idempotency_key, self._jobs.max_queued, PRIORITIES)
        except OutOfMemoryError:
            raise StorageFull("the job store is out of memory", retry_after_s=30.0) from None
        if answer[0] == "full":
            raise QueueFull(f"the queue of {spec.model} is full: {answer[1]} jobs are waiting", retry_after_s=5.0)
        if answer[0] == "conflict":
            raise IdempotencyConflict(f"idempotency_key {idempotency_key!r} was used with another request")
        return await self.get(answer[1])

    async def get(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        fields = await self._client.hgetall(self._keys.of("job", job_id))
        if not fields:
            raise JobNotFound(f"job {job_id!r} does not exist or has expired")
        return job_from_hash(job_id, fields)

    async def page(
        self, *, limit: int, cursor: str = "", states: Collection[JobState] = (), model: str = ""
    ) -> JobPage:
        """Jobs, newest first, that are in one of `states` (any if empty). Raises ValueError for a bad cursor."""
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
                if job and (not states or job.state in states) and (not model or job.spec.model == model):
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

    # ---- workers ----

    async def claim(self, model: str, worker_id: str, nonce: str) -> Claim | None:
        """Takes the next job, after taking lapsed leases away. The same nonce again gives the same answer."""
        lease_ms, attempts = int(self._jobs.lease_s * 1000), self._jobs.max_attempts
        answer = await self._run("claim", model, worker_id, nonce, lease_ms, attempts, *self._ttls, PRIORITIES)
        if answer[0] == "none":
            return None
        _, job_id, token, waited_ms = answer
        checkpoint, prompt_embeds = await self._client.mget(
            self._keys.of("checkpoint", job_id), self._keys.of("prompt", job_id)
        )
        return Claim(
            lease=Lease(job_id=job_id, token=int(token), worker_id=worker_id),
            job=await self.get(job_id),
            checkpoint=checkpoint,
            prompt_embeds=prompt_embeds,
            queue_wait_s=int(waited_ms) / 1000,
        )

    async def append_chunk(
        self, lease: Lease, record: ChunkRecord, fragment: bytes, *, init_segment: bytes, checkpoint: bytes
    ) -> None:
        """Adds the next chunk and its checkpoint in one change. Raises LeaseLost; ValueError for a wrong index."""
        lease_ms = int(self._jobs.lease_s * 1000)
        parts = (record.index, chunk_to_json(record), fragment, init_segment, checkpoint, lease_ms)
        self._check(lease.job_id, await self._run("append", lease.job_id, lease.token, *parts))

    async def save_prompt_embeds(self, lease: Lease, data: bytes) -> None:
        """Keeps the prompt's embedding for resumptions. Raises LeaseLost."""
        self._check(lease.job_id, await self._run("save_prompt", lease.job_id, lease.token, data))

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

    async def chunk_records(self, job_id: str, start: int = 0) -> list[ChunkRecord]:
        """The chunk log from `start` on; empty once it has expired."""
        entries = await self._client.lrange(self._keys.of("chunks", job_id), start, -1)
        return [chunk_from_entry(entry) for entry in entries]

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
        case ["gap", done]:
            raise ValueError(f"job {job_id!r}: {done} chunks are done, the call does not continue there")
    raise JobStoreError(f"job {job_id!r}: unexpected answer {answer!r}")
