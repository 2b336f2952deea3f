"""One live session: a client's commands in, its job's chunks and changes out."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from uuid import uuid4

from helios.v1 import video_generation_pb2 as pb
from helios_engine.errors import InvalidField
from helios_services.config import JobsConfig
from helios_services.gateway.calls.access import visible_job
from helios_services.gateway.calls.pace import Pace
from helios_services.gateway.calls.submission import Submitter
from helios_services.gateway.calls.validate import prompt_update
from helios_services.gateway.calls.video_stream import Segment, VideoStream
from helios_services.gateway.guard.caller import Call, Scope
from helios_services.gateway.guard.refusal import Code, Refusal, refusal_of
from helios_services.jobs.errors import JobNotFound, SessionEnded, StoreUnavailable
from helios_services.jobs.records import Control, Job
from helios_services.jobs.store import JobStore
from helios_services.tasks import cancelled

EVENTS = 1
"""Events that wait for a slow client, beside the one that it is being sent; each holds at most one segment."""
SIGNS_A_GRACE = 3
"""Signs of life in the time that a session goes on without one."""
ENDING = ("pause", "stop")
"""Commands that end a session: a pause does in time."""
CONTROLS = {"pause": Control.PAUSE, "resume": Control.RESUME, "stop": Control.STOP}


@dataclass(frozen=True, kw_only=True)
class PromptTaken:
    """A prompt takes effect at this chunk. message: as in Refused."""

    chunk_index: int
    message: int


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A command was refused; the session goes on. message: which of the client's it was, the first being 0."""

    refusal: Refusal
    message: int


Event = Job | Segment | PromptTaken | Refused
"""What a session says."""


class LiveSession:
    """The handler of one Interact call."""

    def __init__(
        self, call: Call, submitter: Submitter, store: JobStore, video: VideoStream, limits: JobsConfig
    ) -> None:
        self._call, self._submitter, self._store, self._video = call, submitter, store, video
        self._grace_s, self._chunks_read = limits.session_grace_s, 0
        self._pace = Pace(limits.live_lead_chunks)
        self._events: asyncio.Queue[Event | Exception | None] = asyncio.Queue(EVENTS)

    async def run(self, commands: AsyncIterator[pb.InteractRequest]) -> AsyncGenerator[Event]:
        """Ends with the job's last chunk and final state; when cut, the job goes on for a while without its client."""
        commands = aiter(commands)
        job, from_chunk = await self._open(await anext(commands, None))
        sources = (self._deliver(job.id, from_chunk), self._obey(job.id, commands), self._keep_alive(job.id))
        tasks = [asyncio.create_task(self._guarded(source)) for source in sources]
        try:
            yield job
            while (event := await self._events.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            await cancelled(*tasks)

    async def _open(self, first: pb.InteractRequest | None) -> tuple[Job, int]:
        match first.WhichOneof("command") if first is not None else None:
            case "start":
                assert first is not None
                job, from_chunk = await self._submitter.submit(self._call, first.start, session=True), 0
            case "attach":
                assert first is not None
                job = await visible_job(self._store, self._call.caller, first.attach.job_id)
                from_chunk = first.attach.from_chunk
            case other:
                raise InvalidField("command", other, "start or attach, in the first message")
        self._account = job.account
        if job.ended_s is None:  # also after a start: under an idempotency key the job may be older
            await self._store.keep_session(job.id)
        return job, from_chunk

    async def _deliver(self, job_id: str, from_chunk: int) -> None:
        """Chunks and changes of state, then the end."""
        changes = asyncio.create_task(self._guarded(self._report(job_id)))
        await self._read(job_id, from_chunk)  # what came before is not wanted: the job need not wait for that
        try:
            async with aclosing(self._video.segments(self._call.caller, job_id, from_chunk)) as segments:
                async for segment in segments:
                    if segment.record is not None:
                        await self._pace.room(segment.record.index)
                    await self._events.put(segment)
                    if segment.record is not None and not self._pace.kept:
                        await self._read(job_id, segment.record.index + 1)
            await changes
        finally:
            await cancelled(changes)
        await self._events.put(None)

    async def _read(self, job_id: str, chunks: int) -> None:
        self._chunks_read = chunks
        with suppress(StoreUnavailable):  # the next sign of life says it again
            await self._store.chunks_read(job_id, chunks, lead=self._pace.lead)

    async def _report(self, job_id: str) -> None:
        last = None
        async with aclosing(self._video.changes(self._call.caller, job_id)) as changes:
            async for job in changes:
                if (job.state, job.paused, job.chunks_total) != last:
                    last = job.state, job.paused, job.chunks_total
                    await self._events.put(job)

    async def _obey(self, job_id: str, commands: AsyncIterator[pb.InteractRequest]) -> None:
        number = 0
        async for request in commands:
            number += 1
            answer: Event | None = None
            try:
                chunk_index = await self._command(job_id, request)
                if chunk_index is not None:
                    answer = PromptTaken(chunk_index=chunk_index, message=number)
            except Exception as error:
                refusal = refusal_of(error)
                if refusal is None:
                    raise
                answer = Refused(refusal=refusal, message=number)
            if answer is not None:
                await self._events.put(answer)

    async def _command(self, job_id: str, request: pb.InteractRequest) -> int | None:
        """The chunk at which a prompt takes effect; None for other commands."""
        kind = request.WhichOneof("command")
        if kind == "prompt":
            given = request.prompt
            over = given.interpolation_chunks if given.HasField("interpolation_chunks") else None
            update = prompt_update(given.prompt, given.chunk_index, over)
            return await self._store.update_prompt(job_id, update, uuid4().hex)
        if kind == "played":
            self._pace.played(request.played.chunks)
            await self._read(job_id, self._pace.chunks)
            return None
        if kind not in CONTROLS:
            raise InvalidField("command", kind, f"prompt, played, {', '.join(CONTROLS)}, in all messages but the first")
        if kind in ENDING:
            self._check_may_end(kind)
        await self._store.control(job_id, CONTROLS[kind])
        return None

    def _check_may_end(self, command: str) -> None:
        """Raises Refusal unless the job is the caller's account's own, or the caller may cancel jobs."""
        caller = self._call.caller
        if caller.account.id != self._account and not caller.scopes & {Scope.CANCEL, Scope.ADMIN}:
            text = f"{command}: the session is another account's, and the API key lacks the scope cancel"
            raise Refusal(Code.PERMISSION_DENIED, text)

    async def _keep_alive(self, job_id: str) -> None:
        """Signs of life; when they come too late, the job stops by itself, and its end is reported as any other."""
        with suppress(SessionEnded, JobNotFound):
            while True:
                await asyncio.sleep(self._grace_s / SIGNS_A_GRACE)
                with suppress(StoreUnavailable):  # the next sign may get through
                    await self._store.keep_session(job_id)
                    await self._store.chunks_read(job_id, self._chunks_read, lead=self._pace.lead)

    async def _guarded(self, source: Awaitable[None]) -> None:
        """Awaits a source; what ends it badly ends the session."""
        try:
            await source
        except Exception as error:
            await self._events.put(error)
