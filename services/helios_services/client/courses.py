"""Streaming calls that are taken up again where they broke: what to ask for next, and what the messages add up to."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from helios.v1 import video_generation_pb2 as pb
from helios_services.client.errors import HeliosError
from helios_services.client.segments import Assembler, Segment

RECONNECTS = 8
RECONNECT_WAIT_S = 0.5
"""After the first cut; after each further one without anything new, so much longer."""
Item = TypeVar("Item", covariant=True)


class Course(Protocol, Generic[Item]):
    """One long call, over as many connections as it takes. method: of the API."""

    method: str

    def request(self) -> Message:
        """The request for what has not come yet."""

    def add(self, message: Any) -> Item | None:
        """What a message completes; None if that is nothing, or nothing new."""


class Changes:
    """WatchJob: each revision of a job once."""

    method = "WatchJob"

    def __init__(self, job_id: str) -> None:
        self._job_id, self._revision = job_id, -1

    def request(self) -> Message:
        """See Course."""
        return pb.WatchJobRequest(job_id=self._job_id)

    def add(self, message: pb.JobEvent) -> pb.Job | None:
        """See Course."""
        if message.job.revision <= self._revision:
            return None
        self._revision = message.job.revision
        return message.job


class Segments:
    """StreamVideo: the init segment once, and each chunk."""

    method = "StreamVideo"

    def __init__(self, job_id: str, from_chunk: int) -> None:
        self._job_id, self._assembler = job_id, Assembler(from_chunk)

    def request(self) -> Message:
        """See Course. A segment that has begun is asked for again."""
        self._assembler.restart()
        return pb.StreamVideoRequest(job_id=self._job_id, from_chunk=self._assembler.next_chunk)

    def add(self, message: pb.VideoChunk) -> Segment | None:
        """See Course."""
        return self._assembler.add(message)


class Download:
    """DownloadVideo: each byte once, into a file that is there when it is whole."""

    method = "DownloadVideo"

    def __init__(self, job_id: str) -> None:
        self._job_id, self.size_bytes, self._total_bytes = job_id, 0, 0

    def request(self) -> Message:
        """See Course."""
        return pb.DownloadVideoRequest(job_id=self._job_id, offset=self.size_bytes)

    def add(self, message: pb.DownloadVideoResponse) -> bytes | None:
        """See Course."""
        self._total_bytes = message.total_bytes or self._total_bytes
        self.size_bytes += len(message.data)
        return message.data or None

    def check(self) -> None:
        """Raises HeliosError unless all of the file has come."""
        if self.size_bytes != self._total_bytes:
            message = f"{self.size_bytes:,} of the video's {self._total_bytes:,} bytes have come"
            raise HeliosError(grpc.StatusCode.DATA_LOSS, message)


@contextmanager
def whole(target: Path) -> Iterator[Any]:
    """A file to be written that takes its name when the block ends well, and is gone when it does not."""
    if target.exists() and not target.is_file():  # a device or a pipe; a folder says so
        with target.open("wb") as file:
            yield file
        return
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def wait_s(error: grpc.RpcError, attempt: int) -> float:
    """Before a cut call is taken up again. attempt: cuts in a row, without anything new.
    Raises HeliosError if the call is not to be taken up again.
    """
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
    if error.code() is not grpc.StatusCode.UNAVAILABLE or attempt > RECONNECTS:
        raise HeliosError.of(error) from None
    return RECONNECT_WAIT_S * attempt
