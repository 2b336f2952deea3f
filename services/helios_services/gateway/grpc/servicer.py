"""The service VideoGeneration: messages to calls of the API, and answers to messages."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from helios.v1 import video_generation_pb2 as pb
from helios_engine.errors import InvalidField
from helios_services.gateway.calls.api import Api
from helios_services.gateway.calls.video_stream import Segment
from helios_services.gateway.grpc.convert import parts, session_messages
from helios_services.gateway.guard.caller import Call
from helios_services.messages import job_message, media_message, model_message


class Servicer:
    """One method for each of the service's, by its name. What each does is said in the proto file."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def SubmitJob(self, call: Call, request: pb.SubmitJobRequest) -> pb.Job:
        """See the API."""
        return job_message(await self._api.submit(call, request))

    async def GetJob(self, call: Call, request: pb.GetJobRequest) -> pb.Job:
        """See the API."""
        return job_message(await self._api.get(call, request.job_id))

    async def ListJobs(self, call: Call, request: pb.ListJobsRequest) -> pb.ListJobsResponse:
        """See the API."""
        page = await self._api.list_jobs(call, request)
        return pb.ListJobsResponse(jobs=map(job_message, page.jobs), next_page_token=page.next_page_token)

    async def CancelJob(self, call: Call, request: pb.CancelJobRequest) -> pb.Job:
        """See the API."""
        return job_message(await self._api.cancel(call, request.job_id))

    async def RequeueJob(self, call: Call, request: pb.RequeueJobRequest) -> pb.Job:
        """See the API."""
        return job_message(await self._api.requeue(call, request.job_id))

    async def PurgeJob(self, call: Call, request: pb.PurgeJobRequest) -> pb.Job:
        """See the API."""
        return job_message(await self._api.purge(call, request.job_id))

    async def ListModels(self, call: Call, request: pb.ListModelsRequest) -> pb.ListModelsResponse:
        """See the API."""
        return pb.ListModelsResponse(models=map(model_message, self._api.models(call)))

    async def UpdatePrompt(self, call: Call, request: pb.UpdatePromptRequest) -> pb.UpdatePromptResponse:
        """See the API."""
        return pb.UpdatePromptResponse(chunk_index=await self._api.update_prompt(call, request))

    async def UploadMedia(self, call: Call, requests: AsyncIterator[pb.UploadMediaRequest]) -> pb.Media:
        """See the API."""
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "metadata":
            raise InvalidField("part", None if first is None else "data", "metadata, in the first message")
        return media_message(await self._api.upload(call, first.metadata, _data(requests)))

    async def WatchJob(self, call: Call, request: pb.WatchJobRequest) -> AsyncGenerator[pb.JobEvent]:
        """See the API."""
        async with aclosing(self._api.watch(call, request.job_id)) as jobs:
            async for job in jobs:
                yield pb.JobEvent(job=job_message(job))

    async def StreamVideo(self, call: Call, request: pb.StreamVideoRequest) -> AsyncGenerator[pb.VideoChunk]:
        """See the API."""
        async with aclosing(self._api.stream(call, request.job_id, request.from_chunk)) as segments:
            async for segment in segments:
                for part in parts(segment):
                    yield part

    async def GenerateVideo(
        self, call: Call, request: pb.GenerateVideoRequest
    ) -> AsyncGenerator[pb.GenerateVideoResponse]:
        """See the API."""
        async with aclosing(self._api.generate(call, request)) as events:
            async for event in events:
                if isinstance(event, Segment):
                    for part in parts(event):
                        yield pb.GenerateVideoResponse(chunk=part)
                else:
                    yield pb.GenerateVideoResponse(job=job_message(event))

    async def DownloadVideo(
        self, call: Call, request: pb.DownloadVideoRequest
    ) -> AsyncGenerator[pb.DownloadVideoResponse]:
        """See the API."""
        async with self._api.download(call, request.job_id, request.offset) as file:
            yield pb.DownloadVideoResponse(total_bytes=file.total_bytes)
            async for data in file.parts():
                yield pb.DownloadVideoResponse(data=data)

    async def Interact(
        self, call: Call, requests: AsyncIterator[pb.InteractRequest]
    ) -> AsyncGenerator[pb.InteractResponse]:
        """See the API."""
        async with aclosing(self._api.interact(call, requests)) as events:
            async for event in events:
                for message in session_messages(event):
                    yield message


async def _data(requests: AsyncIterator[pb.UploadMediaRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.WhichOneof("part") != "data":
            raise InvalidField("part", request.WhichOneof("part"), "data, in all messages but the first")
        yield request.data
