"""A job's chunks for players that ask for one after another: what one viewer has asked for, the others are given."""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from helios_services.gateway.calls.access import visible_job
from helios_services.gateway.calls.shared_reads import SharedReads
from helios_services.gateway.guard.caller import Caller
from helios_services.gateway.guard.drain import Drain
from helios_services.gateway.guard.refusal import Code, Refusal
from helios_services.jobs.errors import ChunkGone, JobNotFound
from helios_services.jobs.notify import Notifier
from helios_services.jobs.reader import JobReader
from helios_services.jobs.records import ChunkRecord, Job

FRESH_S = 0.5
"""A job is not looked at again for so long, unless it changes."""
MOST_JOBS, MOST_BYTES = 256, 64 * 1024 * 1024
"""Kept at a time; the longest unused goes first."""
KEPT_S = 30.0
"""A job that nobody has asked for is kept no longer: it may have been deleted since."""
POLL_S = 2.0
"""How often a waiting answer looks by itself, should a notification get lost."""
RETRY_S = 2.0
HOLD_S = 10.0
"""How long an answer waits for a chunk."""


@dataclass
class _Followed:
    """A job that viewers follow. segments: bytes by chunk; -1 is the init segment."""

    job: Job
    read_s: float
    used_s: float
    records: list[ChunkRecord] = field(default_factory=list)
    segments: dict[int, bytes] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def next_index(self) -> int:
        """The first chunk that is not known yet."""
        return self.records[-1].index + 1 if self.records else self.job.first_chunk


INIT = -1


class NoChunkYet(Refusal):
    """There is nothing to play yet. No fault of anybody's: doors do not count it as one."""

    def __init__(self, job_id: str) -> None:
        super().__init__(Code.UNAVAILABLE, f"job {job_id!r} has no chunk yet", retry_after_s=RETRY_S)


class Playback:
    """Reads each chunk, and each change of a job, once for all viewers."""

    def __init__(self, store: JobReader, notifier: Notifier, drain: Drain) -> None:
        self._store, self._notifier, self._drain = SharedReads(store), notifier, drain
        self._jobs: OrderedDict[str, _Followed] = OrderedDict()

    async def chunks(self, caller: Caller, job_id: str, at_least: int | None = None) -> tuple[Job, list[ChunkRecord]]:
        """The job and its chunks that are kept, in order. at_least: waits until this one is there, or the job's end, or
        for HOLD_S. Without it the answer waits for a first chunk only.

        Raises JobNotFound; ChunkGone once they have expired; NoChunkYet.
        """
        begun_s = time.monotonic()
        end_s = begun_s + HOLD_S
        with self._notifier.job(job_id) as watch:
            followed = await self._visible(caller, job_id, time.monotonic() - FRESH_S)
            while followed.job.ended_s is None and followed.next_index <= (at_least or followed.job.first_chunk):
                left_s = end_s - time.monotonic()
                if left_s <= 0:
                    break
                self._drain.check("ask again")
                pause_s = FRESH_S if followed.read_s < begun_s else POLL_S  # it may have changed before the watch began
                changed = await watch.wait(min(left_s, pause_s))
                followed = await self._visible(caller, job_id, time.monotonic() - (0.0 if changed else FRESH_S))
        if not followed.records:
            if followed.job.ended_s is None:
                raise NoChunkYet(job_id)
            raise ChunkGone(f"job {job_id!r} has no chunk that is kept (any more)")
        return followed.job, list(followed.records)

    async def segment(self, caller: Caller, job_id: str, index: int) -> bytes:
        """A chunk's fragment; INIT: the init segment. Raises JobNotFound, ChunkGone."""
        followed = await self._visible(caller, job_id, time.monotonic() - KEPT_S)
        data = followed.segments.get(index)
        if data is None:
            if index == INIT:
                data = await self._store.init_segment(job_id)
            else:
                data = await self._store.fragment(job_id, index)
            followed.segments[index] = data
            self._make_room()
        return data

    async def _visible(self, caller: Caller, job_id: str, since_s: float) -> _Followed:
        """The job, read at `since_s` or later. Raises JobNotFound."""
        followed = self._jobs.get(job_id)
        if followed is None:
            job = await visible_job(self._store, caller, job_id)
            followed = self._jobs.setdefault(job_id, _Followed(job=job, read_s=0.0, used_s=time.monotonic()))
            self._make_room()
        elif not caller.may_see_job(job_id, followed.job.spec.tenant):
            raise JobNotFound(f"job {job_id!r} does not exist or has expired")
        async with followed.lock:
            if followed.read_s < since_s:
                await self._refresh(followed)
        followed.used_s = time.monotonic()
        self._jobs[job_id] = followed  # also where it was forgotten meanwhile
        self._jobs.move_to_end(job_id)
        return followed

    async def _refresh(self, followed: _Followed) -> None:
        job_id = followed.job.id
        await asyncio.sleep(0)  # a turn of the loop, in which all come that were woken together
        now_s = time.monotonic()
        try:
            job = await self._store.get(job_id)
            while followed.next_index < job.chunks_done:
                records = await self._store.chunk_records(job, followed.next_index)
                if not records:
                    break
                followed.records += records
        except JobNotFound:
            self._jobs.pop(job_id, None)
            raise
        followed.job, followed.read_s = job, now_s
        while followed.records and followed.records[0].index < job.first_chunk:  # an open-ended job has dropped them
            followed.segments.pop(followed.records.pop(0).index, None)

    def _make_room(self) -> None:
        """Forgets what nobody uses, then what has not been used for longest."""
        now_s = time.monotonic()
        while self._jobs:
            oldest = next(iter(self._jobs.values()))
            if oldest.used_s > now_s - KEPT_S and len(self._jobs) <= MOST_JOBS:
                break
            del self._jobs[oldest.job.id]
        size = sum(len(data) for each in self._jobs.values() for data in each.segments.values())
        for followed in self._jobs.values():
            for index in [index for index in followed.segments if index != INIT]:
                if size <= MOST_BYTES:
                    return
                size -= len(followed.segments.pop(index))
