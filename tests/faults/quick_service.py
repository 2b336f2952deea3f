"""A service whose workers are stand-ins: a real gateway process, real dispatchers, a real Redis, up in two seconds.

What is checked is checked from outside: through gRPC, in Redis, and in the folder of finished videos.
"""

import multiprocessing
import os
import signal
import urllib.request
from collections import Counter
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Self

import psutil
from faults.stand_in_worker import Harm, Plan, run
from redis import Redis

from helios.v1 import video_generation_pb2 as pb
from helios_services.client import HeliosClient
from helios_services.config import GatewayConfig, JobsConfig, RedisConfig, ServiceConfig
from helios_services.jobs.embedded import free_port
from helios_services.jobs.keys import Keys
from support.processes import GatewayProcess
from support.waiting import wait_until

CHUNKS = 3
JOB: dict[str, Any] = {
    "prompt": "a lake",
    "num_frames": 33 * CHUNKS,
    "height": 64,
    "width": 64,
    "seed": 3,
    "pyramid_steps": [1, 1, 1],
}
LEASE_S = 30.0
"""No worker that lives loses it, however seldom it is scheduled; tests let those of the dead run out."""
BRIEF_LEASE_S = 15.0
"""The lease of jobs that are to outlast it."""
JOBS = JobsConfig(lease_s=LEASE_S, heartbeat_s=0.3, max_attempts=3)
END_S = 90.0
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["helios_services.deployments.dispatch.dispatcher"])


class Worker:
    """A stand-in worker's process."""

    def __init__(self, config: ServiceConfig, plan: Plan, log: Path) -> None:
        self.log = log
        self._process: ForkServerProcess = FORKS.Process(target=run, args=(config.model_dump_json(), plan, str(log)))
        self._process.start()
        self.ps = psutil.Process(self._process.pid)

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        os.kill(self.ps.pid, number)

    @property
    def stopped(self) -> bool:
        """Whether it has stopped itself (SIGSTOP)."""
        return self.ps.status() == psutil.STATUS_STOPPED

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.is_alive()

    def died(self) -> None:
        """Waits for its death by SIGKILL."""
        self._process.join(END_S)
        assert self._process.exitcode == -signal.SIGKILL, self.log.read_text()[-3000:]

    def close(self) -> None:
        """Ends it in order; whatever state it is in."""
        if self.alive:
            self.send(signal.SIGCONT)
            self._process.terminate()
            self._process.join(5)
            self._process.kill()
        self._process.join(END_S)


class QuickService:
    """One gateway and any number of stand-in workers over a Redis that the test owns.

    via: a URL by which gateway and workers reach Redis (through a proxy, say), while the test itself uses `redis_url`.
    """

    def __init__(
        self,
        folder: Path,
        redis_url: str,
        *,
        via: str = "",
        jobs: JobsConfig = JOBS,
        redis: dict[str, Any] | None = None,
        gateway: dict[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self._metrics_port = free_port()
        self.config = ServiceConfig(
            state_dir=folder,
            redis=RedisConfig(**{"url": via or redis_url, "socket_timeout_s": 5.0} | (redis or {})),
            jobs=jobs,
            gateway=GatewayConfig(
                **{"port": 0, "http_port": 0, "metrics_port": self._metrics_port, "drain_s": 2.0} | (gateway or {})
            ),
        )
        self.artifacts = Path(self.config.artifacts)
        self.journal = folder / "journal"
        self.journal.touch()
        self.redis: Any = Redis.from_url(redis_url, decode_responses=True)
        self.gateway = GatewayProcess(self.config, folder / "gateway.log")
        self.client = HeliosClient(self.gateway.address)
        self.workers: list[Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends everything but Redis."""
        self.end_workers()
        self.client.close()
        self.gateway.close()
        self.redis.close()

    def end_workers(self) -> None:
        """Ends all workers."""
        for worker in self.workers:
            worker.close()
        self.workers.clear()

    def worker(
        self,
        *harms: Harm,
        chunk_s: float = 0.0,
        full_disk: str = "",
        moving: bool = False,
        config: ServiceConfig | None = None,
    ) -> Worker:
        """Starts a worker that harms itself."""
        plan = Plan(journal=str(self.journal), harms=harms, chunk_s=chunk_s, full_disk=full_disk, moving=moving)
        log = self.folder / f"worker-{len(list(self.folder.glob('worker-*')))}.log"
        worker = Worker(config or self.config, plan, log)
        self.workers.append(worker)
        return worker

    def with_slots(self, concurrent_jobs: int) -> ServiceConfig:
        """The configuration of a worker that drives so many jobs at a time."""
        dispatcher = self.config.dispatcher.model_copy(update={"concurrent_jobs": concurrent_jobs})
        return self.config.model_copy(update={"dispatcher": dispatcher})

    def with_lease(self, lease_s: float) -> ServiceConfig:
        """The configuration of a worker whose leases are so long."""
        jobs = self.config.jobs.model_copy(update={"lease_s": lease_s, "heartbeat_s": lease_s / 5})
        return self.config.model_copy(update={"jobs": jobs})

    def let_lapse(self) -> None:
        """Lets every lease have run out. Those who live renew theirs, so it is for when none of them has one."""
        for job_id in self.redis.zrange(self.key("leases"), 0, -1):
            self.redis.zadd(self.key("leases"), {job_id: 1}, xx=True)

    def lease_end_s(self, job_id: str) -> float:
        """When the job's lease runs out, by the server's clock."""
        end_ms = self.redis.zscore(self.key("leases"), job_id)
        assert end_ms is not None
        return float(end_ms) / 1000

    def key(self, *parts: str) -> str:
        """A key of the store."""
        return Keys(self.config.redis.namespace).of(*parts)

    def submit(self, **options: Any) -> str:
        """Submits JOB; its id."""
        return self.client.submit(**JOB | options).id

    def stream(self, job_id: str, from_chunk: int = 0) -> list[bytes]:
        """The job's segments to its last chunk, checked: numbered without gap or repeat."""
        segments = list(self.client.stream(job_id, from_chunk))
        indices = [segment.info.index for segment in segments if segment.info is not None]
        job = self.client.get(job_id)
        assert indices == list(range(from_chunk, job.chunks_total))
        return [segment.data for segment in segments]

    def ended(self, job_id: str) -> pb.Job:
        """Waits for the job's end."""
        *_, job = self.client.watch(job_id)
        return job

    def succeeded(self, job_id: str, undisturbed: list[bytes]) -> pb.Job:
        """Waits for the job's end and checks the invariant: ended once, well, with one video, bit for bit."""
        assert self.stream(job_id) == undisturbed
        job = self.ended(job_id)
        assert job.state == pb.JOB_STATE_SUCCEEDED, job
        self.check_books()
        assert [path.name for path in self.artifacts.glob(f"{job_id}*")] == [f"{job_id}.mp4"]
        assert (self.artifacts / f"{job_id}.mp4").stat().st_size == job.video_bytes
        return job

    def check_books(self) -> None:
        """Every ended job was counted once, as what it is; none of them is queued or leased."""
        wait_until(lambda: self._counted() == Counter(map(_final_state, self._ended_jobs())))  # others may be ending
        jobs = self._ended_jobs()
        over = {job.id for job in jobs}
        assert not over & set(self.redis.zrange(self.key("leases"), 0, -1))
        for queue in self.redis.scan_iter(self.key("queue", "*")):
            assert not over & set(self.redis.zrange(queue, 0, -1))

    def succeeded_jobs(self) -> int:
        """Jobs that succeeded since the store began."""
        return self._counted().get("succeeded", 0)

    def server_time_s(self) -> float:
        """The Redis server's clock."""
        seconds, microseconds = self.redis.time()
        return float(seconds + microseconds / 1e6)

    def _ended_jobs(self) -> list[pb.Job]:
        return [job for job in self.client.list(page_size=500) if job.HasField("end_time")]

    def _counted(self) -> dict[str, int]:
        return {state: int(count) for state, count in self.redis.hgetall(self.key("ended")).items()}

    def gateway_streams(self) -> int:
        """Streaming calls that the gateway serves now."""
        return streams_of(self._metrics_port)

    def reached(self, point: str) -> int:
        """How often workers came to a point."""
        return sum(line.split(" ", 1)[1] == point for line in self.journal.read_text().splitlines())

    def wait_reached(self, point: str, times: int = 1) -> None:
        """Waits until workers came to a point so often."""
        wait_until(lambda: self.reached(point) >= times)


def streams_of(metrics_port: int) -> int:
    """Streaming calls that a gateway serves now, by its metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=60) as response:
        lines = response.read().decode().splitlines()
    name = "helios_grpc_active_requests{"
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines if line.startswith(name))


def _final_state(job: pb.Job) -> str:
    return pb.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()
