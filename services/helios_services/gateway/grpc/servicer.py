"""The VideoGeneration service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc

from helios.v1 import video_generation_pb2 as pb
from helios.v1.video_generation_pb2_grpc import VideoGenerationServicer
from helios_engine.errors import InvalidField
from helios_services.config import ServiceConfig
from helios_services.gateway.calls.access import visible_job
from helios_services.gateway.calls.live_session import LiveSession
from helios_services.gateway.calls.submission import Submitter
from helios_services.gateway.calls.uploads import Uploads
from helios_services.gateway.calls.validate import prompt_update
from helios_services.gateway.calls.video_stream import VideoStream
from helios_services.gateway.guard.keys import caller
from helios_services.jobs.errors import InvalidCursor
from helios_services.jobs.store import JobStore
from helios_services.media.artifacts import ArtifactStore
from helios_services.messages import STATES, job_message, media_message, model_message

MAX_PAGE, DEFAULT_PAGE = 500, 50
if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class VideoGeneration(VideoGenerationServicer):
    """Jobs in, videos out. Raises what `refusal_of` knows; the interceptor turns it into statuses."""

    def __init__(self, config: ServiceConfig, store: JobStore, video: VideoStream) -> None:
        self._config, self._store, self._video = config, store, video
        self._uploads = Uploads(store, ArtifactStore(config.uploads), config.media)
        self._submitter = Submitter(config, store, self._uploads)

    async def SubmitJob(self, request: pb.SubmitJobRequest, context: Context) -> pb.Job:
        """See the API."""
        return job_message(await self._submitter.submit(request))

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.Job:
        """See the API."""
        return job_message(await visible_job(self._store, request.job_id))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """See the API."""
        if not 0 <= request.page_size <= MAX_PAGE:
            raise InvalidField(
                "page_size", request.page_size, f"an integer from 1 to {MAX_PAGE}, or 0 for {DEFAULT_PAGE}"
            )
        known = {number: state for state, number in STATES.items()}
        for number in request.states:
            if number not in known and number != pb.JOB_STATE_UNSPECIFIED:
                raise InvalidField("states", number, ", ".join(pb.JobState.keys()))
        states = set() if pb.JOB_STATE_UNSPECIFIED in request.states else {known[number] for number in request.states}
        try:
            page = await self._store.page(
                limit=request.page_size or DEFAULT_PAGE,
                cursor=request.page_token,
                states=states,
                model=request.model,
                tenant=None if caller.get().admin else caller.get().tenant,
                dead_letters=request.dead_letters,
            )
        except InvalidCursor:
            allowed = "the next_page_token of a response to the same filters"
            raise InvalidField("page_token", request.page_token, allowed) from None
        return pb.ListJobsResponse(jobs=map(job_message, page.jobs), next_page_token=page.next_cursor)

    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.Job:
        """See the API."""
        await visible_job(self._store, request.job_id)
        return job_message(await self._store.cancel(request.job_id))

    async def RequeueJob(self, request: pb.RequeueJobRequest, context: Context) -> pb.Job:
        """See the API."""
        return job_message(await self._store.requeue(request.job_id, uuid4().hex))

    async def PurgeJob(self, request: pb.PurgeJobRequest, context: Context) -> pb.Job:
        """See the API."""
        return job_message(await self._store.purge(request.job_id, uuid4().hex))

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """See the API."""
        return pb.ListModelsResponse(models=[model_message(self._config.model)])

    async def WatchJob(self, request: pb.WatchJobRequest, context: Context) -> AsyncIterator[pb.JobEvent]:
        """See the API."""
        async for job in self._video.changes(request.job_id):
            yield pb.JobEvent(job=job_message(job))

    async def StreamVideo(self, request: pb.StreamVideoRequest, context: Context) -> AsyncIterator[pb.VideoChunk]:
        """See the API."""
        async for part in self._video.chunks(request.job_id, request.from_chunk):
            yield part

    async def GenerateVideo(
        self, request: pb.GenerateVideoRequest, context: Context
    ) -> AsyncIterator[pb.GenerateVideoResponse]:
        """See the API."""
        job = await self._submitter.submit(request.job, within_s=context.time_remaining())
        yield pb.GenerateVideoResponse(job=job_message(job))
        async for part in self._video.chunks(job.id, 0):
            yield pb.GenerateVideoResponse(chunk=part)
        async for change in self._video.changes(job.id):
            job = change
        yield pb.GenerateVideoResponse(job=job_message(job))

    async def DownloadVideo(
        self, request: pb.DownloadVideoRequest, context: Context
    ) -> AsyncIterator[pb.DownloadVideoResponse]:
        """See the API."""
        async for part in self._video.file(request.job_id, request.offset):
            yield part

    async def UpdatePrompt(self, request: pb.UpdatePromptRequest, context: Context) -> pb.UpdatePromptResponse:
        """See the API."""
        over = request.interpolation_chunks if request.HasField("interpolation_chunks") else None
        update = prompt_update(request.prompt, 0, over)
        await visible_job(self._store, request.job_id)
        chunk = await self._store.update_prompt(request.job_id, update, uuid4().hex)
        return pb.UpdatePromptResponse(chunk_index=chunk)

    async def UploadMedia(self, request: AsyncIterator[pb.UploadMediaRequest], context: Context) -> pb.Media:
        """See the API."""
        return media_message(await self._uploads.receive(request))

    async def Interact(
        self, request: AsyncIterator[pb.InteractRequest], context: Context
    ) -> AsyncIterator[pb.InteractResponse]:
        """See the API."""
        session = LiveSession(self._submitter, self._store, self._video, self._config.jobs.session_grace_s)
        async with aclosing(session.run(request)) as events:
            async for event in events:
                yield event
