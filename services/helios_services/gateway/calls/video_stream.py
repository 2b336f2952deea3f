"""Delivery of a job's chunks and of its finished file: readers pull, one segment is in memory at a time."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import grpc

from helios.v1 import video_generation_pb2 as pb
from helios_engine.errors import InvalidField
from helios_services.gateway.calls.access import visible_job
from helios_services.gateway.calls.shared_reads import SharedReads
from helios_services.gateway.guard.refusal import Refusal, failed_job, retry_info
from helios_services.gateway.metrics import GatewayMetrics
from helios_services.jobs.errors import ChunkGone
from helios_services.jobs.notify import Notifier
from helios_services.jobs.reader import JobReader
from helios_services.jobs.records import Job
from helios_services.jobs.state import JobState
from helios_services.media.artifacts import ArtifactStore
from helios_services.messages import chunk_info
from helios_services.telemetry.tracing import remote
from helios_services.telemetry.tracing import start as start_span

PART_BYTES = 1024 * 1024
POLL_S = 5.0
"""How often a waiting stream looks by itself, should a notification get lost."""


class Drain:
    """Tells streams to end when the gateway shuts down."""

    def __init__(self) -> None:
        self._begun = False

    def begin(self) -> None:
        """Streams end from now on."""
        self._begun = True

    def check(self, hint: str) -> None:
        """Raises UNAVAILABLE, with a hint how to go on, once it has begun."""
        if self._begun:
            raise Refusal(grpc.StatusCode.UNAVAILABLE, f"the gateway is shutting down; {hint}", retry_info(1.0))


class VideoStream:
    """Reads chunks and files for the API's streaming calls."""

    def __init__(
        self, store: JobReader, notifier: Notifier, artifacts: ArtifactStore, metrics: GatewayMetrics, drain: Drain
    ) -> None:
        self._store, self._notifier, self._artifacts = SharedReads(store), notifier, artifacts
        self._metrics, self._drain = metrics, drain

    async def changes(self, job_id: str) -> AsyncIterator[Job]:
        """The job now and after each change, up to its final state."""
        with self._notifier.job(job_id) as watch:
            revision = -1
            while True:
                job = await visible_job(self._store, job_id)
                if job.revision != revision:
                    revision = job.revision
                    yield job
                if job.ended_s is not None:
                    return
                self._drain.check("watch the job again")
                await watch.wait(POLL_S)

    async def chunks(self, job_id: str, from_chunk: int) -> AsyncIterator[pb.VideoChunk]:
        """Init segment and chunks from `from_chunk` on, as they become ready."""
        total = (await visible_job(self._store, job_id)).chunks_total
        if from_chunk < 0:
            raise InvalidField("from_chunk", from_chunk, f"an integer from 0 to {total - 1}" if total else "from 0 on")
        _check_within(from_chunk, total)
        index, opened_s = from_chunk, time.time()
        with self._notifier.job(job_id) as watch:
            while True:
                job = await self._store.get(job_id)
                if index < job.first_chunk:
                    raise ChunkGone(f"from_chunk: {index} is no longer kept; allowed: {job.first_chunk} and later")
                records = await self._store.chunk_records(job, index) if index < job.chunks_done else []
                if index < job.chunks_done and not records:
                    raise ChunkGone(f"from_chunk: {index} is no longer kept")
                if records and records[0].index > index:  # an open-ended job has dropped it this very moment
                    continue
                for record in records:
                    if record.index == from_chunk:
                        for part in _parts(job_id, await self._store.init_segment(job_id), init_segment=True):
                            yield part
                    delivery = start_span("deliver", remote(job.trace), chunk=record.index)
                    try:
                        fragment = await self._store.fragment(job_id, record.index)
                        for part in _parts(job_id, fragment, chunk_index=record.index):
                            if part.last_part:
                                part.info.CopyFrom(chunk_info(record))
                            yield part
                    finally:
                        delivery.end()
                    if record.ready_s >= opened_s:
                        self._metrics.delivered(time.time() - record.ready_s)
                    index = record.index + 1
                if index == job.chunks_total > 0:
                    return
                _check_within(index, job.chunks_total)  # the job may have been stopped before it came that far
                if not records:
                    _check_alive(job)
                    self._drain.check(f"resume with from_chunk={index}")
                    await watch.wait(POLL_S)

    async def file(self, job_id: str, offset: int) -> AsyncIterator[pb.DownloadVideoResponse]:
        """The finished file from byte `offset` on."""
        job = await visible_job(self._store, job_id)
        if job.state is not JobState.SUCCEEDED:
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, f"job {job_id!r} is {job.state}, not succeeded")
        if not job.artifact:
            message = f"job {job_id!r} was open-ended, and not all of its chunks are kept: it has no file"
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, message)
        if not 0 <= offset <= job.video_bytes:
            raise InvalidField("offset", offset, f"an integer from 0 to {job.video_bytes}")
        try:
            reader = await asyncio.to_thread(self._artifacts.open, job.artifact, offset)
        except FileNotFoundError:
            raise Refusal(grpc.StatusCode.NOT_FOUND, f"the video of job {job_id!r} is no longer kept") from None
        try:
            yield pb.DownloadVideoResponse(total_bytes=job.video_bytes)
            while data := await asyncio.to_thread(reader.read, PART_BYTES):
                yield pb.DownloadVideoResponse(data=data)
        finally:
            await asyncio.to_thread(reader.close)


def _check_within(from_chunk: int, total: int) -> None:
    """total: 0 while it is open. A stream from right behind the last chunk on is empty."""
    if from_chunk > total > 0:
        message = f"from_chunk: {from_chunk} is beyond the video; allowed: 0 to {total - 1}"
        raise Refusal(grpc.StatusCode.OUT_OF_RANGE, message)


def _check_alive(job: Job) -> None:
    if job.state is JobState.CANCELLED:
        raise failed_job(grpc.StatusCode.CANCELLED, "JOB_CANCELLED", f"job {job.id!r} was cancelled")
    if job.state is JobState.FAILED:
        assert job.error is not None
        raise failed_job(grpc.StatusCode.ABORTED, job.error.reason, f"job {job.id!r} failed: {job.error.message}")


def _parts(job_id: str, data: bytes, *, init_segment: bool = False, chunk_index: int = 0) -> Iterator[pb.VideoChunk]:
    for start in range(0, len(data), PART_BYTES):
        yield pb.VideoChunk(
            job_id=job_id,
            data=data[start : start + PART_BYTES],
            init_segment=init_segment,
            chunk_index=chunk_index,
            last_part=start + PART_BYTES >= len(data),
        )
