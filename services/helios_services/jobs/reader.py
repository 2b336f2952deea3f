"""What can be read from the job store, changing nothing."""

from redis.asyncio import Redis, RedisCluster

from helios_services.config import JobsConfig, RedisConfig
from helios_services.jobs.calls import StoreCalls
from helios_services.jobs.codec import chunk_from_entry, job_from_hash, media_from_hash
from helios_services.jobs.errors import ChunkGone, JobNotFound, MediaNotFound
from helios_services.jobs.records import ChunkRecord, Job, Media, Priority
from helios_services.jobs.state import JobState

RECORDS_AT_ONCE = 64
"""Chunk records read per round trip."""


class JobReader(StoreCalls):
    """Jobs, chunks and uploads as they are. Any call may raise StoreUnavailable."""

    async def get(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        fields = await self._answer(self._client.hgetall(self._keys.of("job", job_id)))
        if not fields:
            raise JobNotFound(f"job {job_id!r} does not exist or has expired")
        updated = int(fields.get(b"updates", 0)) > 0
        updates = await self._answer(self._client.lrange(self._keys.of("prompts", job_id), 0, -1)) if updated else ()
        return job_from_hash(job_id, fields, updates)

    async def media(self, media_id: str) -> Media:
        """Raises MediaNotFound."""
        fields = await self._answer(self._client.hgetall(self._keys.of("media", media_id)))
        if not fields:
            raise MediaNotFound(f"media {media_id!r} does not exist or has expired")
        return media_from_hash(media_id, fields)

    async def chunk_records(self, job: Job, start: int = 0) -> list[ChunkRecord]:
        """The chunk log from `start` on, a bounded number; empty once it has expired.

        Of an open-ended job, the first may be later than `start`, if older ones have just been dropped.
        """
        offset = max(start - job.first_chunk, 0)
        chunks = self._keys.of("chunks", job.id)
        entries = await self._answer(self._client.lrange(chunks, offset, offset + RECORDS_AT_ONCE - 1))
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
        return int(await self._answer(self._client.zcard(self._keys.of("dead"))))

    async def ended(self) -> dict[JobState, int]:
        """Jobs ended since the store began, by final state: exact, whichever processes died."""
        counts = await self._answer(self._client.hgetall(self._keys.of("ended")))
        return {JobState(state.decode()): int(count) for state, count in counts.items()}

    async def _bytes(self, *parts: str | int) -> bytes:
        data: bytes | None = await self._answer(self._client.get(self._keys.of(*parts)))
        if data is None:
            raise ChunkGone(f"{' '.join(map(str, parts))} is not kept (any more)")
        return data


class ConfiguredReader(JobReader):
    """A reader that knows the settings of jobs: what the parts of JobStore have in common."""

    def __init__(self, client: Redis | RedisCluster, redis: RedisConfig, jobs: JobsConfig) -> None:
        super().__init__(client, redis.namespace)
        self._jobs = jobs
        self._ttls = (int(jobs.job_ttl_s * 1000), int(jobs.chunk_ttl_s * 1000))
