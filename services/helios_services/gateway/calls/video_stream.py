"""Delivery of a job's changes and chunks: readers pull, one segment is in memory at a time."""

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from helios_engine.errors import InvalidField
from helios_services.gateway.calls.access import visible_job
from helios_services.gateway.calls.shared_reads import SharedReads
from helios_services.gateway.guard.caller import Caller
from helios_services.gateway.guard.drain import Drain
from helios_services.gateway.guard.refusal import Code, Refusal
from helios_services.gateway.metrics import GatewayMetrics
from helios_services.jobs.errors import ChunkGone
from helios_services.jobs.notify import Notifier
from helios_services.jobs.reader import JobReader
from helios_services.jobs.records import ChunkRecord, Job
from helios_services.jobs.state import JobState
from helios_services.telemetry.tracing import remote
from helios_services.telemetry.tracing import start as start_span

POLL_S = 5.0
"""How often a waiting stream looks by itself, should a notification get lost."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """The init segment (`record` is None), or a chunk's fragment."""

    job_id: str
    data: bytes
    record: ChunkRecord | None = None


class VideoStream:
    """Follows jobs for whoever reads them."""

    def __init__(self, store: JobReader, notifier: Notifier, metrics: GatewayMetrics, drain: Drain) -> None:
        self._store, self._notifier = SharedReads(store), notifier
        self._metrics, self._drain = metrics, drain

    async def changes(self, caller: Caller, job_id: str) -> AsyncGenerator[Job]:
        """The job now and after each change, up to its final state."""
        with self._notifier.job(job_id) as watch:
            revision = -1
            while True:
                job = await visible_job(self._store, caller, job_id)
                if job.revision != revision:
                    revision = job.revision
                    yield job
                if job.ended_s is not None:
                    return
                self._drain.check("watch the job again")
                await watch.wait(POLL_S)

    async def segments(self, caller: Caller, job_id: str, from_chunk: int) -> AsyncGenerator[Segment]:
        """Init segment and chunks from `from_chunk` on, as they become ready. A chunk counts as delivered when its
        reader asks for the next."""
        total = (await visible_job(self._store, caller, job_id)).chunks_total
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
                        yield Segment(job_id=job_id, data=await self._store.init_segment(job_id))
                    delivery = start_span("deliver", remote(job.trace), chunk=record.index)
                    try:
                        fragment = await self._store.fragment(job_id, record.index)
                        yield Segment(job_id=job_id, data=fragment, record=record)
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


def _check_within(from_chunk: int, total: int) -> None:
    """total: 0 while it is open. A stream from right behind the last chunk on is empty."""
    if from_chunk > total > 0:
        message = f"from_chunk: {from_chunk} is beyond the video; allowed: 0 to {total - 1}"
        raise Refusal(Code.OUT_OF_RANGE, message)


def _check_alive(job: Job) -> None:
    if job.state is JobState.CANCELLED:
        raise Refusal(Code.CANCELLED, f"job {job.id!r} was cancelled", reason="JOB_CANCELLED")
    if job.state is JobState.FAILED:
        assert job.error is not None
        raise Refusal(Code.ABORTED, f"job {job.id!r} failed: {job.error.message}", reason=job.error.reason)
