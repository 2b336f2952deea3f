"""Autoscaling on a local Ray: from nothing to two denoisers and back, while jobs run; no job, chunk or bit is lost."""

import asyncio
import os
import time
import urllib.request
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import psutil
import pytest
from ray import serve
from ray.serve.schema import ReplicaState

from helios_engine.sampling.state import DenoiseState
from helios_services.config import RedisConfig, ServiceConfig
from helios_services.deployments.dispatch.stages import Denoised
from helios_services.deployments.replicas.ray_stages import RayStages
from helios_services.deployments.serving import APP_NAME, serving, settled
from helios_services.jobs.records import Control, Job, JobSpec, Priority
from helios_services.jobs.state import JobState
from helios_services.jobs.store import JobStore
from support.jobs import ended
from support.local_ray import on_ray
from support.tiny import tiny_service
from support.waiting import until

MODEL_DEPLOYMENTS = ("text-encoder", "denoiser", "decoder")
PARAMS: dict[str, Any] = {"prompt": "a lake", "height": 64, "width": 64, "seed": 3, "pyramid_steps": [1, 1, 1]}
CHUNKS = 3
ENDLESS = 100_000
"""Chunks of the job that keeps a backlog until it is cancelled."""
LOOKS_S = 3.0
"""Serve looks several times in this whether a replica that is to go has a call in progress."""


@pytest.fixture
def config(checkpoint: Path, redis: RedisConfig, tmp_path: Path) -> ServiceConfig:
    scaled = {"min_replicas": 0, "upscale_delay_s": 0, "downscale_delay_s": 3, "backlog_target_s": 1}
    config = tiny_service(
        checkpoint,
        tmp_path,
        redis=redis.model_dump(),
        dispatcher={"concurrent_jobs": 6},
        # impatient: while it wakes, calls are given up on again and again
        text_encoder={"autoscaling": scaled | {"max_replicas": 1}, "request_timeout_s": 4},
        denoiser={"autoscaling": scaled | {"max_replicas": 2}},
        decoder={"autoscaling": scaled | {"max_replicas": 1}},
    )
    return settled(config)


class Bench:
    """Jobs of a service, and its replicas."""

    def __init__(self, config: ServiceConfig, store: JobStore) -> None:
        self._config, self.store = config, store

    async def submit(self, chunks: int = CHUNKS, *, priority: Priority = Priority.NORMAL, fps: int = 24) -> str:
        """An open-ended job for 0 chunks."""
        params = PARAMS | {"num_frames": 33 * (chunks or 1), "fps": fps}
        spec = JobSpec(model=self._config.model.name, params=params, chunks_total=chunks, priority=priority)
        return (await self.store.submit(uuid4().hex, spec)).id

    async def succeeded(self, job_id: str) -> Job:
        """The job after its end; it must have gone well, in one attempt."""
        job = await ended(self.store, job_id)
        assert (job.state, job.attempts, job.error) == (JobState.SUCCEEDED, 1, None)
        return job

    def video(self, job_id: str) -> bytes:
        """The published file."""
        return (Path(self._config.artifacts) / f"{job_id}.mp4").read_bytes()

    async def chunks(self, job_id: str, at_least: int) -> None:
        """Waits until the job has made that many chunks more than now."""
        goal = (await self.store.get(job_id)).chunks_done + at_least

        async def there() -> bool:
            return (await self.store.get(job_id)).chunks_done >= goal

        await until(there)


def replicas(deployment: str) -> dict[str, int]:
    """Replicas by state."""
    states = serve.status().applications[APP_NAME].deployments[deployment].replica_states
    return {ReplicaState(state).value: number for state, number in states.items() if number}


async def settled_at(deployment: str, number: int) -> None:
    """Waits until the deployment has exactly this many replicas, all running."""
    wanted = {"RUNNING": number} if number else {}

    async def there() -> bool:
        return await asyncio.to_thread(replicas, deployment) == wanted

    await until(there)


async def repeated_calls() -> float:
    """Calls for chunks that the dispatcher had to repeat."""
    port = await asyncio.to_thread(lambda: serve.get_app_handle(APP_NAME).metrics_port.remote().result())

    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as response:
            return str(response.read(), "utf-8")

    lines = (await asyncio.to_thread(read)).splitlines()
    assert any(line.startswith("helios_work_chunks") for line in lines)
    counters = [f'helios_stage_retries_total{{stage="{stage}"}} ' for stage in ("denoise", "decode")]
    return sum(float(line.split()[-1]) for line in lines if line.startswith(tuple(counters)))


async def test_a_burst_grows_the_denoisers_and_idleness_ends_them_and_nothing_is_lost(
    config: ServiceConfig, store: JobStore
) -> None:
    async def none_is_absent() -> bool:
        return await stages.absent() == frozenset()

    with on_ray(lambda: serving(config)):
        bench = Bench(config, store)
        assert {name: replicas(name) for name in MODEL_DEPLOYMENTS} == {name: {} for name in MODEL_DEPLOYMENTS}

        stages = RayStages(APP_NAME, *(serve.get_deployment_handle(name, APP_NAME) for name in MODEL_DEPLOYMENTS))
        assert await stages.absent() == frozenset({"text", "condition", "denoise", "decode"})

        # from nothing: the first job wakes all three, and is the undisturbed one
        first = await bench.submit()
        await bench.succeeded(first)

        # a burst. The two open-ended jobs need few chunks a second, but take all that they can get: they keep the
        # denoisers busy while one is taken away
        watched = [await bench.submit(0, fps=1) for _ in range(2)]
        backlog = await bench.submit(ENDLESS, priority=Priority.BATCH)
        await settled_at("denoiser", 2)
        await until(none_is_absent)
        burst = [await bench.submit() for _ in range(2)]
        for job_id in burst:
            await bench.succeeded(job_id)

        # the backlog goes, one denoiser is enough, and the other goes between two chunks
        await bench.store.cancel(backlog)
        await settled_at("denoiser", 1)
        for job_id in watched:
            await bench.chunks(job_id, at_least=2)
        assert await repeated_calls() == 0

        # idle: everything goes, and comes back
        for job_id in watched:
            await bench.store.control(job_id, Control.STOP)
            await bench.succeeded(job_id)
        for name in MODEL_DEPLOYMENTS:
            await settled_at(name, 0)
        last = await bench.submit()
        await bench.succeeded(last)
        assert {bench.video(job_id) for job_id in (*burst, last)} == {bench.video(first)}
        assert await repeated_calls() == 0


def slow_denoiser(folder: Path) -> type[Any]:
    """A denoiser that keeps the second chunk of a video open while the file `hold` is there, and says so."""

    class SlowDenoiser:  # local to a function: Ray carries it to the replicas by value
        def __init__(self, config: ServiceConfig) -> None:
            # the replica's own, which is not replaced
            from helios_services.deployments.replicas.denoiser import DenoiserReplica

            self._replica = cast(Any, DenoiserReplica(config))
            self._make, self._replica._denoise = self._replica._denoise, self._held

        async def denoise_chunk(self, *args: Any, **options: Any) -> Denoised:
            chunk: Denoised = await self._replica.denoise_chunk(*args, **options)
            return chunk

        def _held(self, state: DenoiseState, *prompts: Any) -> Any:
            if state.chunk_index == 1 and (folder / "hold").exists():
                (folder / f"held-by-{os.getpid()}").touch()
                while (folder / "hold").exists():
                    time.sleep(0.05)
            return self._make(state, *prompts)

    return SlowDenoiser


async def test_a_denoiser_scaled_away_ends_with_its_chunk_however_long_that_takes(
    config: ServiceConfig, store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helios_services.deployments.replicas.denoiser.DenoiserReplica", slow_denoiser(tmp_path))
    # the two jobs' few chunks are within 30 s of one replica's work, also when a chunk takes seconds here
    scaling = config.denoiser.autoscaling.model_copy(update={"min_replicas": 1, "backlog_target_s": 30.0})
    denoiser = {"autoscaling": scaling, "graceful_shutdown_timeout_s": 200.0, "max_ongoing_requests": 1}
    config = config.model_copy(update={"denoiser": config.denoiser.model_copy(update=denoiser)})
    hold = tmp_path / "hold"

    async def held_by_two() -> bool:
        return len(list(tmp_path.glob("held-by-*"))) == 2

    async def one_is_to_go() -> bool:
        return await asyncio.to_thread(replicas, "denoiser") == {"RUNNING": 1, "STOPPING": 1}

    async def one_is_left() -> bool:
        return sum(map(psutil.pid_exists, pids)) == 1

    with on_ray(lambda: serving(config)):
        bench = Bench(config, store)
        undisturbed = await bench.submit()
        await bench.succeeded(undisturbed)
        backlog = await bench.submit(ENDLESS, priority=Priority.BATCH)
        await bench.chunks(backlog, at_least=2)  # beyond the chunk that is held

        hold.touch()
        try:
            jobs = [await bench.submit() for _ in range(2)]
            await until(held_by_two)  # the second replica has come, and each has a chunk: whichever goes has one
            await store.cancel(backlog)
            await until(one_is_to_go)
            await asyncio.sleep(LOOKS_S)
            assert await one_is_to_go()
            pids = [int(path.name.rpartition("-")[2]) for path in tmp_path.glob("held-by-*")]
            assert [psutil.pid_exists(pid) for pid in pids] == [True, True]
        finally:
            hold.unlink()

        for job_id in jobs:
            assert (await bench.succeeded(job_id)).chunks_done == CHUNKS
            assert bench.video(job_id) == bench.video(undisturbed)
        await settled_at("denoiser", 1)
        await until(one_is_left)
        assert await repeated_calls() == 0
