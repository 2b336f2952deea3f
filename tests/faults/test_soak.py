"""Many small jobs: nothing that they used stays used. HELIOS_SOAK_JOBS sets how many (100000 for the full soak)."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from faults.conftest import Seen
from faults.quick_service import JOBS, QuickService

from helios_services.client import HeliosError
from support.redis_servers import RedisServer
from support.waiting import wait_until

SOAK_JOBS = int(os.environ.get("HELIOS_SOAK_JOBS", "1000"))
WAVE = 150
"""Jobs before the baseline is taken, and again before it is compared."""
KEPT_S = 1.0
RETRY_S = 0.5
GROWTH_BYTES = 24 * 2**20
"""Allocators keep some; a leak of 25 kB a job shows at 1000 jobs, one of 250 bytes in the full soak."""
SMALL: dict[str, Any] = {"num_frames": 33}


class Usage:
    """What a service uses while it is idle."""

    def __init__(self, service: QuickService, redis: RedisServer, processes: list[psutil.Process]) -> None:
        self.keys = int(redis.client.dbsize())
        self.index = int(redis.client.zcard(service.key("index")))
        self.redis_bytes = int(redis.client.info("memory")["used_memory"])
        self.files = [process.num_fds() for process in processes]
        self.bytes = [process.memory_info().rss for process in processes]


def run(service: QuickService, jobs: int) -> None:
    """Submits jobs as fast as they are taken, and waits until all have ended and expired."""
    before = service.succeeded_jobs()
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda _: submit(service), range(jobs)):
            pass
    wait_until(lambda: service.succeeded_jobs() == before + jobs, 30 + jobs)
    wait_until(lambda: only_lasting(service))


def submit(service: QuickService) -> None:
    """Again and again while the queue is full."""
    while True:
        try:
            service.submit(**SMALL)
            return
        except HeliosError as error:
            if error.retry_after_s is None:
                raise
            time.sleep(RETRY_S)


def only_lasting(service: QuickService) -> bool:
    """Whether all that belongs to single jobs has expired."""
    kinds = [*("job", "chunks", "fragment", "init", "checkpoint", "claim", "prompts", "idempotency", "held")]
    kinds += ["storage", "kept", "tenant"]  # which sweeps clear
    return not any(next(service.redis.scan_iter(service.key(kind, "*"), 1000), None) for kind in kinds)


@pytest.mark.timeout(900 + SOAK_JOBS // 4)
@pytest.mark.fault(number=10, fault=f"a soak of {SOAK_JOBS} small jobs")
def test_a_soak_leaves_nothing_behind(tmp_path: Path, seen: Seen) -> None:
    redis = RedisServer(tmp_path / "redis")
    brief = JOBS.model_copy(update={"job_ttl_s": KEPT_S, "chunk_ttl_s": KEPT_S, "max_queued": 200, "lease_s": 15.0})
    with QuickService(tmp_path, redis.url, jobs=brief, redis={"socket_timeout_s": 60.0}) as service:
        worker = service.worker(config=service.with_slots(4))
        processes = [service.gateway.ps, worker.ps]
        run(service, WAVE)
        before = Usage(service, redis, processes)
        run(service, SOAK_JOBS)
        run(service, WAVE)
        after = Usage(service, redis, processes)
        assert len(list(service.artifacts.glob("*.mp4"))) == SOAK_JOBS + 2 * WAVE
    redis.close()
    assert after.keys == before.keys
    assert after.index == 0
    assert after.redis_bytes < before.redis_bytes + 2**20
    for early, late in zip(before.files, after.files, strict=True):
        assert late <= early + 8  # idle connections come and go
    grown = [late - early for early, late in zip(before.bytes, after.bytes, strict=True)]
    assert max(grown) < GROWTH_BYTES
    seen(
        f"all succeeded; keys {before.keys} before and {after.keys} after; Redis {before.redis_bytes / 1e6:.1f} and "
        f"{after.redis_bytes / 1e6:.1f} MB; gateway {grown[0] / 1e6:+.1f} MB, worker {grown[1] / 1e6:+.1f} MB; open "
        f"files {before.files} before and {after.files} after"
    )
