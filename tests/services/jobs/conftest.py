"""A store of its own for each test, and short ways to fill it."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from helios_services.config import JobsConfig, RedisConfig
from helios_services.jobs.connector import Connector
from helios_services.jobs.keys import Keys
from helios_services.jobs.records import ChunkRecord, Claim, JobSpec, Lease, Priority
from helios_services.jobs.store import JobStore
from support.redis_clients import async_client

JOBS = JobsConfig(lease_s=3600.0, heartbeat_s=10.0, session_grace_s=3600.0, max_queued=50, max_attempts=3)
"""Leases and sessions lapse when a test lets them."""


@pytest.fixture
async def store(redis: RedisConfig) -> AsyncIterator[JobStore]:
    store = Connector(redis, JOBS).store()
    yield store
    await store.close()


def spec(chunks: int = 2, priority: Priority = Priority.NORMAL, **params: Any) -> JobSpec:
    """A job of `chunks` chunks."""
    return JobSpec(model="m", params={"prompt": "a lake", "fps": 24, **params}, chunks_total=chunks, priority=priority)


def record(index: int) -> ChunkRecord:
    """A chunk of the log."""
    return ChunkRecord(
        index=index, num_frames=33, start_s=index * 1.375, duration_s=1.375, size_bytes=3, stage_s={"denoise": 0.5}
    )


async def append(store: JobStore, lease: Lease, index: int) -> None:
    """Appends chunk `index` with recognisable contents."""
    await store.append_chunk(
        lease, record(index), b"f%d" % index, init_segment=b"init", checkpoint=b"state %d" % (index + 1)
    )


async def expire(job_id: str, redis: RedisConfig, field: str = "deadline_ms") -> None:
    """Lets the job's deadline, or its latest start, have passed."""
    root = Keys(redis.namespace)
    async with async_client(redis.url) as client:
        await client.hset(root.of("job", job_id), field, 1)
        await client.zadd(root.of("deadlines"), {job_id: 1})


async def let_lapse(store: JobStore, redis: RedisConfig) -> list[str]:
    """Lets every lease have run out, and has the store look; the jobs that were taken away."""
    leases = Keys(redis.namespace).of("leases")
    async with async_client(redis.url) as client:
        held: list[Any] = await client.zrange(leases, 0, -1)
        for job_id in held:
            await client.zadd(leases, {job_id: 1}, xx=True)
    return await store.sweep()


async def let_session_lapse(job_id: str, redis: RedisConfig) -> None:
    """As if its client had given no sign of life for as long as the grace."""
    async with async_client(redis.url) as client:
        assert await client.delete(Keys(redis.namespace).of("session", job_id))


async def claim(store: JobStore) -> Claim:
    """Claims a job that must be there."""
    claimed = await store.claim("m", "worker", uuid4().hex)
    assert claimed is not None
    return claimed
