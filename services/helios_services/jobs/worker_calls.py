"""What workers ask of the store: jobs, leases, and the progress that they make."""

from collections.abc import Collection

import structlog

from helios_services.jobs.calls import check, refuse
from helios_services.jobs.codec import chunk_to_json, prompt_from_entry
from helios_services.jobs.records import ChunkRecord, Claim, Job, JobFailure, Lease, Priority, Start, Verdict
from helios_services.jobs.upkeep import Upkeep

log = structlog.get_logger(__name__)
EVERY_RANK = len(Priority)
MAX_MESSAGE_CHARS = 2000


class WorkerCalls(Upkeep):
    """Claims, chunks and the ends of attempts."""

    _short = False

    async def claim(self, model: str, worker_id: str, nonce: str, *, interactive_only: bool = False) -> Claim | None:
        """Takes the next job, after a part of a sweep. The same nonce again gives the same answer."""
        await self._migrate()
        await self._sweep_once()
        ranks = 1 if interactive_only else EVERY_RANK
        lease_ms = int(self._jobs.lease_s * 1000)
        answer = await self._run("claim", model, worker_id, nonce, lease_ms, self._ttls[0], ranks)
        self._note_memory(short=answer[0] == "short")
        if answer[0] in ("none", "short"):
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

    def _note_memory(self, *, short: bool) -> None:
        if short and not self._short:
            log.error("redis_memory_is_short", message="no job is taken up until some is free")
        self._short = short

    async def begin_chunk(self, lease: Lease, index: int, known: int) -> Start:
        """Whether to make chunk `index` now, and the prompt updates beyond the first `known`. Raises LeaseLost.

        From a GO on, the chunk has started: later prompt updates take effect after it, and the account has had it.
        """
        jobs = self._jobs
        parts = (int(jobs.pause_limit_s * 1000), jobs.live_window_chunks, jobs.fair_quantum_chunks, self._ttls[0])
        answer = await self._run("begin", lease.job_id, lease.token, index, known, *parts)
        if answer[0] not in tuple(Verdict):
            refuse(lease.job_id, answer)
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
        """Adds the next chunk and its checkpoint in one change.

        Raises LeaseLost; QuotaExceeded when the account's jobs have made as much as they may; ValueError for a wrong
        index.
        """
        lease_ms = int(self._jobs.lease_s * 1000)
        limits = (self._jobs.live_window_chunks, self._jobs.max_account_output_bytes)
        parts = (record.index, chunk_to_json(record), fragment, init_segment, checkpoint, lease_ms, *limits)
        check(lease.job_id, await self._run("append", lease.job_id, lease.token, *parts))

    async def save_prompt_embeds(self, lease: Lease, key: str, data: bytes, *, keep: Collection[str]) -> None:
        """Keeps a prompt's embedding for resumptions, and of the others those in `keep`.

        Raises LeaseLost; QuotaExceeded as `append_chunk` does.
        """
        most_bytes = self._jobs.max_account_output_bytes
        check(lease.job_id, await self._run("save_prompt", lease.job_id, lease.token, key, data, most_bytes, *keep))

    async def begin_publish(self, lease: Lease) -> None:
        """All chunks are there. Raises LeaseLost; ValueError when some are not."""
        check(lease.job_id, await self._run("publish", lease.job_id, lease.token))

    async def succeed(self, lease: Lease, *, artifact: str, video_bytes: int) -> Job:
        """Ends the job well. Raises LeaseLost."""
        return await self._finish(lease, "succeed", "artifact", artifact, "video_bytes", video_bytes)

    async def fail(self, lease: Lease, failure: JobFailure) -> Job:
        """Ends the job badly. Raises LeaseLost."""
        message = failure.message[:MAX_MESSAGE_CHARS]
        return await self._finish(lease, "fail", "error_reason", failure.reason, "error_message", message)

    async def release(self, lease: Lease) -> None:
        """Gives the job back to the queue at its old place; does not count as an attempt. Raises LeaseLost."""
        check(lease.job_id, await self._run("release", lease.job_id, lease.token))

    async def _finish(self, lease: Lease, event: str, *fields: str | int) -> Job:
        answer = await self._run("finish", lease.job_id, lease.token, event, *self._ttls, *fields)
        check(lease.job_id, answer)
        return await self.get(lease.job_id)

    async def _unless_kept(self, lease: Lease, script: str, *parts: int | float) -> bool:
        answer = await self._run(script, lease.job_id, lease.token, *parts)
        if answer == ["kept"]:
            return False
        check(lease.job_id, answer)
        return True
