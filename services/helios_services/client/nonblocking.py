"""The asyncio client: the same calls as the blocking one."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any, Self

import grpc

from helios.v1 import video_generation_pb2 as pb
from helios_services.client.connection import Connection
from helios_services.client.courses import Changes, Course, Download, Item, Segments, wait_s, whole
from helios_services.client.errors import call_errors
from helios_services.client.segments import Segment, listing, submission, upload_parts


class AsyncHeliosClient:
    """Calls a gateway at `target` (HOST:PORT). Every method raises HeliosError when its call fails."""

    def __init__(self, target: str, connection: Connection | None = None) -> None:
        connection = connection or Connection()
        self._channel = connection.channel(target, grpc.aio)
        self._stub = connection.stub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    async def submit(self, prompt: str, **options: Any) -> pb.Job:
        """Submits a job; options as in `submission`."""
        job: pb.Job = await self._call("SubmitJob", submission(prompt, **options))
        return job

    async def get(self, job_id: str) -> pb.Job:
        """A job as it is."""
        job: pb.Job = await self._call("GetJob", pb.GetJobRequest(job_id=job_id))
        return job

    async def list(
        self, *, page_size: int = 50, states: tuple[str, ...] = (), model: str = "", dead_letters: bool = False
    ) -> AsyncIterator[pb.Job]:
        """All jobs, newest first, page by page. dead_letters: failed jobs that can be queued again, only."""
        request = listing(page_size=page_size, states=states, model=model, dead_letters=dead_letters)
        while True:
            page = await self._call("ListJobs", request)
            for job in page.jobs:
                yield job
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    async def cancel(self, job_id: str) -> pb.Job:
        """Cancels a job."""
        job: pb.Job = await self._call("CancelJob", pb.CancelJobRequest(job_id=job_id))
        return job

    async def requeue(self, job_id: str) -> pb.Job:
        """Queues a dead letter again."""
        job: pb.Job = await self._call("RequeueJob", pb.RequeueJobRequest(job_id=job_id))
        return job

    async def purge(self, job_id: str) -> pb.Job:
        """Gives up a dead letter."""
        job: pb.Job = await self._call("PurgeJob", pb.PurgeJobRequest(job_id=job_id))
        return job

    def watch(self, job_id: str) -> AsyncGenerator[pb.Job]:
        """The job now and after each change, up to its end; a cut connection is taken up again."""
        return self._followed(Changes(job_id))

    async def update_prompt(self, job_id: str, prompt: str, *, interpolation_chunks: int | None = None) -> int:
        """Changes a job's prompt from the next chunk that has not started: that chunk."""
        request = pb.UpdatePromptRequest(job_id=job_id, prompt=prompt, interpolation_chunks=interpolation_chunks)
        return int((await self._call("UpdatePrompt", request)).chunk_index)

    async def upload(self, file: Path, content_type: str = "") -> pb.Media:
        """Uploads an image or a clip, for `image_id` or `video_id`. content_type: by the file's name if empty."""
        media: pb.Media = await self._call("UploadMedia", upload_parts(file, content_type))
        return media

    async def interact(self, commands: AsyncIterable[pb.InteractRequest]) -> AsyncGenerator[pb.InteractResponse]:
        """A live session: events, from the job as accepted to its end. The first command starts or attaches."""
        call = self._stub.Interact(aiter(commands))
        try:
            with call_errors():
                async for event in call:
                    yield event
        finally:
            call.cancel()

    def stream(self, job_id: str, from_chunk: int = 0) -> AsyncGenerator[Segment]:
        """Init segment and chunks; a cut connection is taken up again where it broke."""
        return self._followed(Segments(job_id, from_chunk))

    async def download(self, job_id: str, target: Path) -> int:
        """Writes the finished video to a file, which appears whole or not at all; its size in bytes.

        A cut connection is taken up again where it broke.
        """
        video = Download(job_id)
        with whole(target) as file:
            async for data in self._followed(video):
                file.write(data)
            video.check()
        return video.size_bytes

    async def models(self) -> tuple[pb.Model, ...]:
        """The models that jobs may name, the default first."""
        return tuple((await self._call("ListModels", pb.ListModelsRequest())).models)

    async def _call(self, method: str, request: Any) -> Any:
        with call_errors():
            return await getattr(self._stub, method)(request)

    async def _followed(self, course: Course[Item]) -> AsyncGenerator[Item]:
        cuts = 0
        while True:
            call = getattr(self._stub, course.method)(course.request())
            try:
                async for message in call:
                    item = course.add(message)
                    if item is not None:
                        cuts = 0
                        yield item
                return
            except grpc.RpcError as error:
                cuts += 1
                delay_s = wait_s(error, cuts)
            finally:
                call.cancel()
            await asyncio.sleep(delay_s)
