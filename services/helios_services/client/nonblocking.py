"""The asyncio client: the same calls as the blocking one."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any, Self, Unpack

import grpc

from helios.v1 import video_generation_pb2 as pb
from helios_services.client import calls
from helios_services.client.calls import Answer, Call, Listing
from helios_services.client.connection import Connection
from helios_services.client.courses import Changes, Course, Download, Item, Segments, wait_s, whole
from helios_services.client.errors import call_errors
from helios_services.client.segments import Segment


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
        return await self._call(calls.submit(prompt, **options))

    async def get(self, job_id: str) -> pb.Job:
        """A job as it is."""
        return await self._call(calls.get(job_id))

    async def list(self, **options: Unpack[Listing]) -> AsyncIterator[pb.Job]:
        """All jobs, newest first, asked for page by page; options as in `Listing`."""
        request = calls.listing(options)
        while True:
            page = await self._call(calls.page(request))
            for job in page.jobs:
                yield job
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    async def cancel(self, job_id: str) -> pb.Job:
        """Cancels a job."""
        return await self._call(calls.cancel(job_id))

    async def requeue(self, job_id: str) -> pb.Job:
        """Queues a dead letter again."""
        return await self._call(calls.requeue(job_id))

    async def purge(self, job_id: str) -> pb.Job:
        """Gives up a dead letter."""
        return await self._call(calls.purge(job_id))

    def watch(self, job_id: str) -> AsyncGenerator[pb.Job]:
        """The job now and after each change, up to its end; a cut connection is taken up again."""
        return self._followed(Changes(job_id))

    async def update_prompt(self, job_id: str, prompt: str, *, interpolation_chunks: int | None = None) -> int:
        """Changes a job's prompt from the next chunk that has not started: that chunk."""
        return await self._call(calls.update_prompt(job_id, prompt, interpolation_chunks))

    async def upload(self, file: Path, content_type: str = "") -> pb.Media:
        """Uploads an image or a clip, for `image_id` or `video_id`. content_type: by the file's name if empty."""
        return await self._call(calls.upload(file, content_type))

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
        return await self._call(calls.models())

    async def _call(self, call: Call[Answer]) -> Answer:
        with call_errors():
            return call.read(await getattr(self._stub, call.method)(call.request))

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
