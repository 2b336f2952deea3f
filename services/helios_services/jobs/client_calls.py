"""What clients and operators ask of the store, through a gateway."""

import hashlib
from collections.abc import Collection, Sequence
from typing import NoReturn

from helios_engine.prompts import ScheduledPrompt
from helios_services.jobs.calls import BYTES, check, record_of, refuse, texts
from helios_services.jobs.codec import job_from_hash, spec_to_json, stored_json, summary_json, terms_to_json
from helios_services.jobs.errors import (
    IdempotencyConflict,
    JobTooLarge,
    MediaFull,
    MediaNotFound,
    NotContinuable,
    QueueFull,
    QuotaExceeded,
)
from helios_services.jobs.reader import ConfiguredReader
from helios_services.jobs.records import NOBODY, Account, Control, DueWebhook, Job, JobSpec, Media


class ClientCalls(ConfiguredReader):
    """Submissions, what can be done to jobs, webhooks and uploads."""

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

        Raises JobTooLarge, QueueFull, QuotaExceeded, IdempotencyConflict, NotContinuable or MediaNotFound.
        """
        request = stored_json(vars(spec)).encode()
        if len(request) > self._jobs.max_job_bytes:
            raise JobTooLarge(len(request), self._jobs.max_job_bytes)
        answer = await self._call(
            "submit",
            job_id,
            request,
            summary_json(vars(spec)).encode(),
            hashlib.sha256(spec_to_json(spec).encode()).hexdigest(),
            spec.model,
            spec.priority,
            spec.chunks_total,
            idempotency_key,
            self._jobs.max_queued,
            spec.continue_from,
            int(self._jobs.session_grace_s * 1000) if spec.session else 0,
            self._ttls[0],
            self._jobs.max_account_bytes,
            trace,
            terms_to_json(spec, account, within_s),
            self._jobs.max_account_output_bytes,
            *spec.media_ids,
        )
        record = record_of(answer.pop()) if len(answer) == 3 and answer[0] == b"ok" else {}
        said = texts(answer)
        if said[0] != "ok":
            _refuse_submission(job_id, spec, idempotency_key, said)
        return job_from_hash(said[1], record) if record else await self.get(said[1])

    async def cancel(self, job_id: str) -> Job:
        """Cancels at once, in any state but succeeded and failed. Raises JobNotFound, InvalidTransition."""
        check(job_id, await self._run("cancel", job_id, *self._ttls))
        return await self.get(job_id)

    async def update_prompt(self, job_id: str, update: ScheduledPrompt, nonce: str) -> int:
        """Changes the prompt from chunk `update.chunk_index` on, or the next that has not started: that chunk.

        The same nonce again gives the same answer. Raises JobNotFound, InvalidTransition, NoChunkLeft, PromptsFull,
        QuotaExceeded.
        """
        jobs = self._jobs
        limits = (jobs.max_prompt_updates, jobs.max_prompt_update_bytes, jobs.max_account_bytes)
        parts = (nonce, update.chunk_index, update.interpolation_chunks, update.prompt)
        answer = await self._run("update_prompt", job_id, *parts, *limits)
        check(job_id, answer)
        return int(float(answer[1]))

    async def control(self, job_id: str, action: Control) -> Job:
        """Pauses, resumes or stops a job. Raises JobNotFound, InvalidTransition."""
        check(job_id, await self._run("control", job_id, action))
        return await self.get(job_id)

    async def keep_session(self, job_id: str) -> None:
        """A sign of life of the session's client. Raises JobNotFound; SessionEnded when it comes too late."""
        check(job_id, await self._run("keep_session", job_id, int(self._jobs.session_grace_s * 1000)))

    async def chunks_read(self, job_id: str, count: int, *, lead: int | None = None) -> None:
        """The session's client has been sent the first `count` chunks.

        lead: its viewer has played them, and the session is to be at most so many chunks ahead of that, from now on.
        """
        await self._run("read", job_id, count, self._jobs.live_window_chunks, "" if lead is None else lead)

    async def requeue(self, job_id: str, nonce: str) -> Job:
        """Queues a dead letter again; it goes on after its last chunk. The same nonce again gives the same answer.

        Raises JobNotFound, NotDeadLettered.
        """
        check(job_id, await self._run("requeue", job_id, nonce))
        return await self.get(job_id)

    async def purge(self, job_id: str, nonce: str) -> Job:
        """Gives up a dead letter. The same nonce again gives the same answer. Raises JobNotFound, NotDeadLettered."""
        check(job_id, await self._run("purge", job_id, nonce, self._ttls[1]))
        return await self.get(job_id)

    async def delete(self, job_id: str) -> None:
        """Forgets a job and its chunks; one that has not ended is cancelled. Its file is the caller's to delete.

        Raises JobNotFound.
        """
        check(job_id, await self._run("delete", job_id, *self._ttls))

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

        Returns names of files that have expired, to be deleted. Raises MediaFull, QuotaExceeded.
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

        Raises MediaNotFound when the place was not kept for so long.
        """
        parts = (media.id, media.name, media.content_type, media.size_bytes, int(ttl_s * 1000))
        if (await self._run("add_media", *parts, media.tenant, account.id))[0] == "lapsed":
            raise MediaNotFound(f"media {media.id!r} has taken too long to arrive")

    async def forget_media(self, names: Sequence[str], account: Account = NOBODY) -> None:
        """These files are not kept (any more). account: whose, of such as have no record."""
        await self._run("forget_media", account.id, *names)


def _refuse_submission(job_id: str, spec: JobSpec, idempotency_key: str, answer: list[str]) -> NoReturn:
    match answer:
        case ["full", count]:
            raise QueueFull(f"the queue of {spec.model} is full: {count} jobs are waiting", retry_after_s=5.0)
        case ["quota", limit, value, ""] if limit not in BYTES:
            message = f"{limit} of this API key's account is {float(value):g}, and the job alone is more"
            raise QuotaExceeded(message, limit=limit, retry_after_s=None)
        case ["quota", limit, value, retry_ms] if limit not in BYTES:
            message = f"{limit} of this API key's account is {float(value):g}, and is used up"
            raise QuotaExceeded(message, limit=limit, retry_after_s=int(retry_ms) / 1000)
        case ["conflict", _]:
            raise IdempotencyConflict(f"idempotency_key {idempotency_key!r} was used with another request")
        case ["gone", parent]:
            raise NotContinuable(f"job {parent!r} can no longer be continued: its last state is not kept")
        case ["no_media", media_id]:
            raise MediaNotFound(f"media {media_id!r} does not exist or has expired")
    refuse(job_id, answer)
