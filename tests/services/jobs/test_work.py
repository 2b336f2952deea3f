"""The count of work: exact, in chunks, by kind of job."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from helios_services.config import JobsConfig, RedisConfig
from helios_services.jobs import upkeep
from helios_services.jobs.connector import Connector
from helios_services.jobs.records import ChunkRecord, Claim, Control, JobSpec, Priority
from helios_services.jobs.store import JobStore
from helios_services.jobs.work import Pace, Work

PAIR = (Priority.NORMAL, Priority.BATCH)


@pytest.fixture
async def store(redis: RedisConfig) -> AsyncIterator[JobStore]:
    store = Connector(redis, JobsConfig(lease_s=600.0)).store()
    yield store
    await store.close()


async def submit(
    store: JobStore,
    chunks: int,
    *,
    priority: Priority = Priority.NORMAL,
    fps: int = 24,
    session: bool = False,
    model: str = "m",
) -> str:
    params = {"prompt": '"fps": 99', "fps": fps}
    spec = JobSpec(model=model, params=params, chunks_total=chunks, priority=priority, session=session)
    return (await store.submit(uuid4().hex, spec)).id


async def claim(store: JobStore) -> Claim:
    claim = await store.claim("m", "w", uuid4().hex)
    assert claim is not None
    return claim


async def append(store: JobStore, claim: Claim, index: int) -> None:
    record = ChunkRecord(index=index, num_frames=33, start_s=0, duration_s=1, size_bytes=1, stage_s={})
    await store.append_chunk(claim.lease, record, b"f", init_segment=b"i", checkpoint=b"c")


async def test_nothing_is_no_work(store: JobStore) -> None:
    assert await store.work("m") == Work()


async def test_a_job_is_counted_from_submission_to_its_last_chunk(store: JobStore) -> None:
    await submit(store, 3)
    await submit(store, 5, priority=Priority.BATCH)
    await submit(store, 50, model="another")
    assert await store.work("m") == Work(queued_jobs=2, queued_chunks=8)
    running = await claim(store)
    assert await store.work("m") == Work(queued_jobs=1, queued_chunks=5, running_jobs=1, running_chunks=3)
    await append(store, running, 0)
    assert (await store.work("m")).running_chunks == 2
    await store.release(running.lease)
    assert await store.work("m") == Work(queued_jobs=2, queued_chunks=7)
    running = await claim(store)
    for index in (1, 2):
        await append(store, running, index)
    assert await store.work("m") == Work(queued_jobs=1, queued_chunks=5)
    await store.begin_publish(running.lease)
    await store.succeed(running.lease, artifact="", video_bytes=0)
    assert await store.work("m") == Work(queued_jobs=1, queued_chunks=5)
    await store.cancel((await claim(store)).job.id)
    assert await store.work("m") == Work()


async def test_live_jobs_count_as_a_rate_queued_and_running(store: JobStore) -> None:
    await submit(store, 0, fps=33)
    await submit(store, 9, session=True, fps=66)
    await submit(store, 9, priority=Priority.INTERACTIVE, fps=99)
    await submit(store, 4)
    assert await store.work("m") == Work(queued_jobs=4, queued_chunks=4, live_chunks_per_s=6.0)
    assert (await claim(store)).job.spec.priority is Priority.INTERACTIVE
    assert await store.work("m") == Work(queued_jobs=3, queued_chunks=4, running_jobs=1, live_chunks_per_s=6.0)


async def test_a_paused_job_waits_and_a_stopped_one_is_done(store: JobStore) -> None:
    jobs = [await submit(store, 0), await submit(store, 6)]
    await claim(store)
    for job_id in jobs:
        await store.control(job_id, Control.PAUSE)
    assert await store.work("m") == Work(paused_jobs=2)
    await store.control(jobs[1], Control.RESUME)
    assert await store.work("m") == Work(paused_jobs=1, queued_jobs=1, queued_chunks=6)
    await store.control(jobs[0], Control.STOP)
    assert await store.work("m") == Work(queued_jobs=1, queued_chunks=6)


async def test_a_long_queue_is_judged_by_its_front(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "JOBS_COUNTED", 4)
    for _ in range(5):
        for priority in PAIR:
            await submit(store, 3, priority=priority)
    assert await store.work("m") == Work(queued_jobs=10, queued_chunks=30)


async def test_the_pace_is_an_average_that_follows_all_dispatchers(store: JobStore) -> None:
    assert (await store.work("m", [Pace(stage="denoise", chunks=3, seconds=2.0)])).pace_s == {"denoise": 2.0}
    measured = [Pace(stage="denoise", chunks=1, seconds=1.0), Pace(stage="text", chunks=1, seconds=0.5)]
    assert (await store.work("m", measured)).pace_s == {"denoise": 1.9, "text": 0.5}
    ((_, settled),) = (await store.work("m", [Pace(stage="denoise", chunks=500, seconds=1.0)])).pace_s.items() - {
        ("text", 0.5)
    }
    assert settled == pytest.approx(1.0, abs=1e-5)
    assert (await store.work("another")).pace_s == {}
