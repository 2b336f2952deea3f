"""Delivery of a job's finished file."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO

import structlog

from helios_engine.errors import InvalidField
from helios_services.gateway.calls.access import visible_job
from helios_services.gateway.guard.caller import Caller
from helios_services.gateway.guard.refusal import Code, Refusal
from helios_services.jobs.reader import JobReader
from helios_services.jobs.records import Job
from helios_services.jobs.state import JobState
from helios_services.media.artifacts import ArtifactStore

log = structlog.get_logger(__name__)
PART_BYTES = 1024 * 1024
RETRY_S = 5.0


class VideoFile:
    """A file that is open. total_bytes: of the whole file."""

    def __init__(self, reader: BinaryIO, total_bytes: int) -> None:
        self._reader, self.total_bytes = reader, total_bytes

    async def parts(self) -> AsyncIterator[bytes]:
        """The bytes from the offset on, at most PART_BYTES at a time."""
        while data := await asyncio.to_thread(self._reader.read, PART_BYTES):
            yield data


async def delete_video(artifacts: ArtifactStore, job: Job) -> None:
    """Deletes a job's file. Raises Refusal where that fails: the job is still there then, to be deleted again."""
    try:
        await asyncio.to_thread(artifacts.delete, job.artifact)
    except OSError as error:
        log.warning("video_not_deleted", job_id=job.id, error=str(error))
        message = f"the video of job {job.id!r} cannot be deleted now"
        raise Refusal(Code.UNAVAILABLE, message, retry_after_s=RETRY_S) from None


@asynccontextmanager
async def open_video(
    store: JobReader, artifacts: ArtifactStore, caller: Caller, job_id: str, offset: int
) -> AsyncIterator[VideoFile]:
    """The file of a job that has succeeded, from byte `offset` on. Raises Refusal, InvalidField, JobNotFound."""
    job = await visible_job(store, caller, job_id)
    if job.state is not JobState.SUCCEEDED:
        raise Refusal(Code.FAILED_PRECONDITION, f"job {job_id!r} is {job.state}, not succeeded")
    if not job.artifact:
        message = f"job {job_id!r} was open-ended, and not all of its chunks are kept: it has no file"
        raise Refusal(Code.FAILED_PRECONDITION, message)
    if not 0 <= offset <= job.video_bytes:
        raise InvalidField("offset", offset, f"an integer from 0 to {job.video_bytes}")
    try:
        reader = await asyncio.to_thread(artifacts.open, job.artifact, offset)
    except FileNotFoundError:
        raise Refusal(Code.NOT_FOUND, f"the video of job {job_id!r} is no longer kept") from None
    try:
        yield VideoFile(reader, job.video_bytes)
    finally:
        await asyncio.to_thread(reader.close)
