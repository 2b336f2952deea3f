"""Reads that many streams make at the same moment: one goes to Redis, and all get its answer."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from helios_services.jobs.reader import JobReader
from helios_services.jobs.records import ChunkRecord, Job


class SharedReads(JobReader):
    """A reader for a job's many watchers, who are all woken by one change."""

    def __init__(self, reader: JobReader) -> None:
        super().__init__(reader._client, reader._keys.namespace, reader._shares)
        self._reads: dict[tuple[str | int, ...], asyncio.Task[Any]] = {}

    async def get(self, job_id: str) -> Job:
        """See JobReader. Never older than the call: only a read that has not been sent yet is joined."""
        key = ("job", job_id)

        async def read() -> Job:
            await asyncio.sleep(0)  # a turn of the loop, in which all come that were woken together
            del self._reads[key]
            return await JobReader.get(self, job_id)

        job: Job = await self._joined(key, read)
        return job

    async def chunk_records(self, job: Job, start: int = 0) -> list[ChunkRecord]:
        """See JobReader. What the log has once never changes."""
        records: list[ChunkRecord] = await self._joined(
            ("records", job.id, start, job.first_chunk), lambda: JobReader.chunk_records(self, job, start)
        )
        return records

    async def _bytes(self, *parts: str | int) -> bytes:
        data: bytes = await self._joined(parts, lambda: JobReader._bytes(self, *parts))
        return data

    async def _joined(self, key: tuple[str | int, ...], read: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        task = self._reads.get(key)
        if task is None:
            task = self._reads[key] = asyncio.create_task(read())
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)  # who goes away leaves the others their answer

    def _forget(self, key: tuple[str | int, ...], done: "asyncio.Task[Any]") -> None:
        if self._reads.get(key) is done:
            del self._reads[key]
        if not done.cancelled():
            done.exception()  # seen, though all who wanted it may be gone
