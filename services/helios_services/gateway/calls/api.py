"""Every call of the API. A door has a guard let the call in, and hands what it was given on to here."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from uuid import uuid4

import structlog

from helios.v1 import video_generation_pb2 as pb
from helios_services.config import ModelConfig, ServiceConfig
from helios_services.gateway.calls.access import visible_job
from helios_services.gateway.calls.listing import Listing, listing, listing_after
from helios_services.gateway.calls.live_session import Event, LiveSession
from helios_services.gateway.calls.playback import Playback
from helios_services.gateway.calls.submission import Submitter
from helios_services.gateway.calls.tokens import MadeToken, TokenMaker, TokenRequest
from helios_services.gateway.calls.uploads import Uploads
from helios_services.gateway.calls.validate import prompt_update
from helios_services.gateway.calls.video_file import VideoFile, delete_video, open_video
from helios_services.gateway.calls.video_stream import Segment, VideoStream
from helios_services.gateway.guard.caller import Call
from helios_services.gateway.guard.drain import Drain
from helios_services.gateway.guard.in_progress import InProgress
from helios_services.gateway.guard.in_turn import InTurn
from helios_services.gateway.guard.tokens import Tokens
from helios_services.gateway.metrics import GatewayMetrics
from helios_services.jobs.errors import InvalidTransition, JobNotFound, StoreUnavailable
from helios_services.jobs.notify import Notifier
from helios_services.jobs.records import ChunkRecord, Job, Media
from helios_services.jobs.store import JobStore
from helios_services.media.artifacts import ArtifactStore
from helios_services.tasks import Background

log = structlog.get_logger(__name__)
LISTING_SHARE, LISTINGS_WAITING = 0.25, 16
"""The share of a gateway's time that lists of jobs may take; the calls of one key that may wait for their turn."""


class Api:
    """Jobs in, videos out. Every method raises what `refusal_of` knows."""

    def __init__(
        self,
        config: ServiceConfig,
        store: JobStore,
        notifier: Notifier,
        metrics: GatewayMetrics,
        drain: Drain,
        tokens: Tokens | None = None,
    ) -> None:
        self._store, self._config = store, config
        self._artifacts = ArtifactStore(config.artifacts)
        self._video = VideoStream(store, notifier, metrics, drain)
        self._playback = Playback(store, notifier, drain)
        self._drain, self._background = drain, Background()
        self._uploads = Uploads(store, ArtifactStore(config.uploads), config.media, self._background)
        self._submitter = Submitter(config, store, self._uploads)
        limits = config.gateway
        self._downloads = InProgress(limits.max_downloads, limits.max_downloads_per_key, "downloads")
        self._tokens = TokenMaker(tokens, store, frozenset({config.model.name}))
        self._listings = InTurn(LISTING_SHARE, LISTINGS_WAITING, "listings")

    async def close(self) -> None:
        """Waits for what calls that have ended left to be done."""
        await self._background.settled()

    async def submit(self, call: Call, request: pb.SubmitJobRequest) -> Job:
        """The job, queued."""
        return await self._submitter.submit(call, request)

    async def get(self, call: Call, job_id: str) -> Job:
        """The job as it is."""
        return await visible_job(self._store, call.caller, job_id)

    async def list_jobs(self, call: Call, request: pb.ListJobsRequest) -> Listing:
        """A page of the caller's jobs, newest first."""
        async with self._listings.one(call.caller.key_id):
            return await listing(self._store, call.caller, request)

    async def list_after(self, call: Call, after: str, limit: int, *, oldest_first: bool) -> Listing:
        """A page of the caller's jobs, behind the one whose id is `after` (empty: from the start)."""
        async with self._listings.one(call.caller.key_id):
            return await listing_after(self._store, call.caller, after, limit, oldest_first=oldest_first)

    async def cancel(self, call: Call, job_id: str) -> Job:
        """The job, cancelled."""
        await visible_job(self._store, call.caller, job_id)
        return await self._store.cancel(job_id)

    async def delete(self, call: Call, job_id: str) -> None:
        """Cancels a job that has not ended, and forgets it with its chunks and its file."""
        job = await visible_job(self._store, call.caller, job_id)
        if job.ended_s is None:
            with suppress(InvalidTransition):  # it has just ended
                await self._store.cancel(job_id)
            job = await self._store.get(job_id)
        if job.artifact:
            await delete_video(self._artifacts, job)
        await self._store.delete(job_id)

    async def requeue(self, call: Call, job_id: str) -> Job:
        """The dead letter, queued again."""
        return await self._store.requeue(job_id, uuid4().hex)

    async def purge(self, call: Call, job_id: str) -> Job:
        """The dead letter, given up."""
        return await self._store.purge(job_id, uuid4().hex)

    def models(self, call: Call) -> list[ModelConfig]:
        """The models, the default first."""
        return [self._config.model]

    async def update_prompt(self, call: Call, request: pb.UpdatePromptRequest) -> int:
        """The chunk at which the new prompt takes effect."""
        over = request.interpolation_chunks if request.HasField("interpolation_chunks") else None
        update = prompt_update(request.prompt, 0, over)
        await visible_job(self._store, call.caller, request.job_id)
        return await self._store.update_prompt(request.job_id, update, uuid4().hex)

    def watch(self, call: Call, job_id: str) -> AsyncGenerator[Job]:
        """The job now and after each change, up to its end."""
        return self._video.changes(call.caller, job_id)

    def stream(self, call: Call, job_id: str, from_chunk: int) -> AsyncGenerator[Segment]:
        """Init segment and chunks from `from_chunk` on, as they become ready."""
        return self._video.segments(call.caller, job_id, from_chunk)

    async def chunks(self, call: Call, job_id: str, at_least: int | None = None) -> tuple[Job, list[ChunkRecord]]:
        """The job and its chunks that are kept, for a player. at_least: a chunk that is waited for, for a while."""
        return await self._playback.chunks(call.caller, job_id, at_least)

    async def segment(self, call: Call, job_id: str, index: int) -> bytes:
        """A chunk's fragment, for a player; -1: the init segment."""
        return await self._playback.segment(call.caller, job_id, index)

    async def generate(self, call: Call, request: pb.GenerateVideoRequest) -> AsyncGenerator[Job | Segment]:
        """The job as accepted, its video, the job as ended."""
        job = await self._submitter.submit(call, request.job, within_s=call.left_s)
        try:
            yield job
            async with aclosing(self._video.segments(call.caller, job.id, 0)) as segments:
                async for segment in segments:
                    yield segment
            async with aclosing(self._video.changes(call.caller, job.id)) as changes:
                async for change in changes:
                    job = change
            yield job
        except (asyncio.CancelledError, GeneratorExit):
            if request.cancel_on_disconnect and not self._drain.begun:  # a gateway that ends is nobody's leaving
                self._background.start(self._cancel_if_running(job.id))
            raise

    async def _cancel_if_running(self, job_id: str) -> None:
        try:
            await self._store.cancel(job_id)
        except (InvalidTransition, JobNotFound):  # it has ended
            return
        except StoreUnavailable:
            log.warning("job_not_cancelled", job_id=job_id)

    @asynccontextmanager
    async def download(self, call: Call, job_id: str, offset: int) -> AsyncGenerator[VideoFile]:
        """The finished file from byte `offset` on."""
        with self._downloads.one(call.caller.key_id):
            async with open_video(self._store, self._artifacts, call.caller, job_id, offset) as file:
                yield file

    async def upload(self, call: Call, metadata: pb.MediaMetadata, data: AsyncIterator[bytes]) -> Media:
        """Receives a picture or a clip."""
        return await self._uploads.receive(call.caller, metadata, data)

    async def create_token(self, call: Call, request: TokenRequest) -> MadeToken:
        """A short-lived token for a page."""
        return await self._tokens.make(call, request)

    def interact(self, call: Call, commands: AsyncIterator[pb.InteractRequest]) -> AsyncGenerator[Event]:
        """One live session."""
        session = LiveSession(call, self._submitter, self._store, self._video, self._config.jobs)
        return session.run(commands)
