"""What can be read from the job store, changing nothing."""

from collections.abc import AsyncIterator, Awaitable, Collection
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis, RedisCluster

from helios_services.jobs.codec import chunk_from_entry, job_from_hash, media_from_hash
from helios_services.jobs.connect import answered
from helios_services.jobs.errors import ChunkGone, JobNotFound, MediaNotFound
from helios_services.jobs.keys import Keys
from helios_services.jobs.records import ChunkRecord, Job, JobPage, Media, Priority
from helios_services.jobs.state import JobState

RECORDS_AT_ONCE = 64
"""Chunk records read per round trip."""
SCAN_PAGE = 200
"""Index entries looked at per round trip while listing."""


class JobReader:
    """Jobs, chunks and uploads as they are. Any call may raise StoreUnavailable."""

    def __init__(self, client: Redis | RedisCluster, namespace: str) -> None:
        self._client: Any = client  # redis-py's types leave open whether replies are bytes
        self._keys = Keys(namespace)

    async def get(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        fields = await _answer(self._client.hgetall(self._keys.of("job", job_id)))
        if not fields:
            raise JobNotFound(f"job {job_id!r} does not exist or has expired")
        updated = int(fields.get(b"updates", 0)) > 0
        updates = await _answer(self._client.lrange(self._keys.of("prompts", job_id), 0, -1)) if updated else ()
        return job_from_hash(job_id, fields, updates)

    async def page(
        self,
        *,
        limit: int,
        cursor: str = "",
        states: Collection[JobState] = (),
        model: str = "",
        tenant: str | None = None,
        dead_letters: bool = False,
    ) -> JobPage:
        """Jobs, newest first, that are in one of `states` (any if empty), without their prompt updates.

        tenant: whose jobs (None: everybody's). dead_letters: only those.
        Raises ValueError for a bad cursor.
        """
        if cursor and not (cursor.isascii() and cursor.isdigit()):
            raise ValueError(f"cursor: {cursor!r} is not one that this store gave")
        jobs: list[Job] = []
        listing = self._keys.of("dead" if dead_letters else "index")
        last, below = 0, f"({cursor}" if cursor else "+inf"
        wanted = min(limit + 1, SCAN_PAGE)  # at first as many as the page takes if nothing is filtered out
        while True:
            entries = await _answer(
                self._client.zrevrangebyscore(listing, below, "-inf", start=0, num=wanted, withscores=True)
            )
            async with self._pipeline() as pipeline:
                for job_id, _ in entries:
                    pipeline.hgetall(self._keys.of("job", job_id.decode()))
                records = await pipeline.execute()
            for (job_id, seq), fields in zip(entries, records, strict=True):
                job = job_from_hash(job_id.decode(), fields) if fields else None
                visible = job is not None and tenant in (None, job.spec.tenant)
                if job and visible and (not states or job.state in states) and model in ("", job.spec.model):
                    if len(jobs) == limit:
                        return JobPage(jobs=jobs, next_cursor=str(last))
                    jobs.append(job)
                last = int(seq)
            if len(entries) < wanted:
                return JobPage(jobs=jobs, next_cursor="")
            below, wanted = f"({last}", SCAN_PAGE

    async def media(self, media_id: str) -> Media:
        """Raises MediaNotFound."""
        fields = await _answer(self._client.hgetall(self._keys.of("media", media_id)))
        if not fields:
            raise MediaNotFound(f"media {media_id!r} does not exist or has expired")
        return media_from_hash(media_id, fields)

    async def chunk_records(self, job: Job, start: int = 0) -> list[ChunkRecord]:
        """The chunk log from `start` on, a bounded number; empty once it has expired.

        Of an open-ended job, the first may be later than `start`, if older ones have just been dropped.
        """
        offset = max(start - job.first_chunk, 0)
        chunks = self._keys.of("chunks", job.id)
        entries = await _answer(self._client.lrange(chunks, offset, offset + RECORDS_AT_ONCE - 1))
        return [record for record in map(chunk_from_entry, entries) if record.index >= start]

    async def fragment(self, job_id: str, index: int) -> bytes:
        """The chunk's fMP4 fragment. Raises ChunkGone."""
        return await self._bytes("fragment", job_id, index)

    async def init_segment(self, job_id: str) -> bytes:
        """The fMP4 init segment. Raises ChunkGone."""
        return await self._bytes("init", job_id)

    async def depths(self, model: str) -> dict[Priority, int]:
        """Queued jobs by priority."""
        async with self._pipeline() as pipeline:
            for priority in Priority:
                pipeline.zcard(self._keys.of("queue", model, priority))
            return dict(zip(Priority, await pipeline.execute(), strict=True))

    async def dead_letters(self) -> int:
        """Failed jobs that can be queued again."""
        return int(await _answer(self._client.zcard(self._keys.of("dead"))))

    async def ended(self) -> dict[JobState, int]:
        """Jobs ended since the store began, by final state: exact, whichever processes died."""
        counts = await _answer(self._client.hgetall(self._keys.of("ended")))
        return {JobState(state.decode()): int(count) for state, count in counts.items()}

    async def _bytes(self, *parts: str | int) -> bytes:
        data: bytes | None = await _answer(self._client.get(self._keys.of(*parts)))
        if data is None:
            raise ChunkGone(f"{' '.join(map(str, parts))} is not kept (any more)")
        return data

    @asynccontextmanager
    async def _pipeline(self) -> AsyncIterator[Any]:
        """Commands that travel together, in no transaction."""
        with answered():
            async with self._client.pipeline(transaction=False) as pipeline:
                yield pipeline


async def _answer(command: Awaitable[Any]) -> Any:
    with answered():
        return await command
