"""After a chaos run: everything drains, and what clients were told is what there is."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
from faults.chaos_load import Load

from helios.v1 import video_generation_pb2 as pb
from helios_services.client import HeliosClient, HeliosError
from helios_services.config import ServiceConfig
from helios_services.jobs.keys import Keys
from support.waiting import wait_until

DRAIN_S = 240.0
SUCCEEDED, CANCELLED = pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_CANCELLED


def drain(address: str, load: Load) -> None:
    """Waits until every job has ended; dead letters are queued again until there are none."""
    assert not load.wrong, load.wrong
    with HeliosClient(address) as client:

        def over() -> bool:
            load.requeue(random.Random(0))
            try:
                return all(job.state in (SUCCEEDED, CANCELLED) for job in client.list(page_size=500))
            except HeliosError as error:
                if error.code is not grpc.StatusCode.UNAVAILABLE:
                    raise
                return False

        wait_until(over, DRAIN_S)


def check(address: str, redis: Any, config: ServiceConfig, load: Load) -> dict[str, int]:
    """Every accepted job has ended once, with one video and all of its chunks; nothing is left over."""
    with HeliosClient(address) as client:
        jobs = {job.id: job for job in client.list(page_size=500)}
        assert set(jobs) == set(load.accepted), "jobs that nobody was told of, or that are gone"
        states = Counter(job.state for job in jobs.values())
        for job_id, job in jobs.items():
            if job.state == CANCELLED:
                assert job_id in load.cancelled, f"job {job_id} was cancelled by nobody"
                continue
            chunks = load.accepted[job_id]
            indices = [segment.info.index for segment in client.stream(job_id) if segment.info is not None]
            assert (indices, job.chunks_done) == (list(range(chunks)), chunks), f"job {job_id} has chunks {indices}"
            videos = list(Path(config.artifacts).glob(f"{job_id}*"))
            assert [video.name for video in videos] == [f"{job_id}.mp4"], f"job {job_id} has videos {videos}"
            assert videos[0].stat().st_size == job.video_bytes, f"the video of job {job_id} is not whole"
    keys = Keys(config.redis.namespace)
    ended = {state.decode(): int(count) for state, count in redis.hgetall(keys.of("ended")).items()}
    assert ended.get("succeeded", 0) == states[SUCCEEDED], "jobs succeeded more than once"
    assert ended.get("cancelled", 0) == states[CANCELLED], "jobs were cancelled more than once"
    assert ended.get("failed", 0) >= load.requeued
    for kind in ("queue", "lane", "lanes", "barred", "leases", "running", "parked", "dead", "tenant_dead", "deadlines"):
        assert not redis.keys(keys.of(kind) + "*"), f"{kind} is not empty"
    return {
        "jobs": len(jobs),
        "succeeded": states[SUCCEEDED],
        "cancelled": states[CANCELLED],
        "requeued": load.requeued,
        "streams read to the end": load.streamed,
    }
