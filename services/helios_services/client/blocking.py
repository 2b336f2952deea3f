"""The blocking client."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import grpc

from helios.v1 import video_generation_pb2 as pb
from helios_services.client.connection import Connection
from helios_services.client.errors import HeliosError, call_errors
from helios_services.client.segments import (
    RECONNECT_WAIT_S,
    Assembler,
    Segment,
    listing,
    resumable,
    submission,
    upload_parts,
)


class HeliosClient:
    """Calls a gateway at `target` (HOST:PORT). Every method raises HeliosError when its call fails."""

    def __init__(self, target: str, connection: Connection | None = None) -> None:
        connection = connection or Connection()
        self._channel = connection.channel(target)
        self._stub = connection.stub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def submit(self, prompt: str, **options: Any) -> pb.Job:
        """Submits a job; options as in `submission`."""
        job: pb.Job = self._call("SubmitJob", submission(prompt, **options))
        return job

    def get(self, job_id: str) -> pb.Job:
        """A job as it is."""
        job: pb.Job = self._call("GetJob", pb.GetJobRequest(job_id=job_id))
        return job

    def list(
        self, *, page_size: int = 50, states: tuple[str, ...] = (), model: str = "", dead_letters: bool = False
    ) -> Iterator[pb.Job]:
        """All jobs, newest first, page by page. states: for example ("queued", "running").

        dead_letters: failed jobs that can be queued again, only.
        """
        request = listing(page_size=page_size, states=states, model=model, dead_letters=dead_letters)
        while True:
            page = self._call("ListJobs", request)
            yield from page.jobs
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def cancel(self, job_id: str) -> pb.Job:
        """Cancels a job."""
        job: pb.Job = self._call("CancelJob", pb.CancelJobRequest(job_id=job_id))
        return job

    def requeue(self, job_id: str) -> pb.Job:
        """Queues a dead letter again."""
        job: pb.Job = self._call("RequeueJob", pb.RequeueJobRequest(job_id=job_id))
        return job

    def purge(self, job_id: str) -> pb.Job:
        """Gives up a dead letter."""
        job: pb.Job = self._call("PurgeJob", pb.PurgeJobRequest(job_id=job_id))
        return job

    def watch(self, job_id: str) -> Iterator[pb.Job]:
        """The job now and after each change, up to its end."""
        with call_errors():
            for event in self._stub.WatchJob(pb.WatchJobRequest(job_id=job_id)):
                yield event.job

    def update_prompt(self, job_id: str, prompt: str, *, interpolation_chunks: int | None = None) -> int:
        """Changes a job's prompt from the next chunk that has not started: that chunk."""
        request = pb.UpdatePromptRequest(job_id=job_id, prompt=prompt, interpolation_chunks=interpolation_chunks)
        return int(self._call("UpdatePrompt", request).chunk_index)

    def upload(self, file: Path, content_type: str = "") -> pb.Media:
        """Uploads an image or a clip, for `image_id` or `video_id`. content_type: by the file's name if empty."""
        media: pb.Media = self._call("UploadMedia", upload_parts(file, content_type))
        return media

    def stream(self, job_id: str, from_chunk: int = 0) -> Iterator[Segment]:
        """Init segment and chunks; a cut connection is taken up again where it broke."""
        assembler, attempt = Assembler(from_chunk), 0
        while True:
            request = pb.StreamVideoRequest(job_id=job_id, from_chunk=assembler.next_chunk)
            try:
                for part in self._stub.StreamVideo(request):
                    segment = assembler.add(part)
                    if segment is not None:
                        attempt = 0
                        yield segment
                return
            except grpc.RpcError as error:
                if not resumable(error, attempt):
                    raise HeliosError.of(error) from None
                attempt += 1
                assembler.restart()
                time.sleep(RECONNECT_WAIT_S * attempt)

    def download(self, job_id: str, target: Path) -> int:
        """Writes the finished video to a file; its size in bytes."""
        with call_errors(), target.open("wb") as file:
            for part in self._stub.DownloadVideo(pb.DownloadVideoRequest(job_id=job_id)):
                file.write(part.data)
            return file.tell()

    def models(self) -> tuple[pb.Model, ...]:
        """The models that jobs may name, the default first."""
        return tuple(self._call("ListModels", pb.ListModelsRequest()).models)

    def _call(self, method: str, request: Any) -> Any:
        with call_errors():
            return getattr(self._stub, method)(request)
