"""A cluster that comes up takes no job before it can make it."""

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
import ray
from ray import serve
from ray.serve.schema import ReplicaState

from helios_services.config import RedisConfig, ServiceConfig
from helios_services.deployments.dispatch.stages import Denoised
from helios_services.deployments.serving import APP_NAME, serving, settled
from helios_services.jobs.records import JobSpec
from helios_services.jobs.state import JobState
from helios_services.jobs.store import JobStore
from support.jobs import ended
from support.local_ray import on_ray
from support.tiny import tiny_service
from support.waiting import until

PARAMS = {"prompt": "a lake", "height": 64, "width": 64, "num_frames": 33, "fps": 24, "pyramid_steps": [1, 1, 1]}
CLAIMS_S = 3.0
"""Dispatchers look for jobs several times in this."""


@pytest.fixture
def config(checkpoint: Path, redis: RedisConfig, tmp_path: Path) -> ServiceConfig:
    return settled(tiny_service(checkpoint, tmp_path, redis=redis.model_dump()))


def slow_to_load(gate: Path) -> type[Any]:
    """A denoiser that is loaded when the gate is there."""

    class SlowToLoad:  # local to a function: Ray carries it to the replicas by value
        def __init__(self, config: ServiceConfig) -> None:
            # the replica's own, which is not replaced
            from helios_services.deployments.replicas.denoiser import DenoiserReplica

            while not gate.exists():
                time.sleep(0.05)
            self._replica = cast(Any, DenoiserReplica(config))

        async def denoise_chunk(self, *args: Any, **options: Any) -> Denoised:
            chunk: Denoised = await self._replica.denoise_chunk(*args, **options)
            return chunk

    return SlowToLoad


def states() -> dict[str, set[str]]:
    """The states of the replicas, by deployment."""
    application = serve.status().applications.get(APP_NAME)
    deployments = {} if application is None else application.deployments
    return {
        name: {ReplicaState(state).value for state, number in status.replica_states.items() if number}
        for name, status in deployments.items()
    }


async def test_jobs_wait_in_the_queue_until_the_denoiser_is_loaded(
    config: ServiceConfig, store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    monkeypatch.setattr("helios_services.deployments.replicas.denoiser.DenoiserReplica", slow_to_load(gate))
    spec = JobSpec(model=config.model.name, params=PARAMS, chunks_total=1)
    job_id = (await store.submit(uuid4().hex, spec)).id
    loading = {name: {"RUNNING"} for name in ("text-encoder", "decoder", "dispatcher")} | {"denoiser": {"STARTING"}}
    with ExitStack() as stack:
        deployed = asyncio.create_task(asyncio.to_thread(stack.enter_context, on_ray(lambda: serving(config))))
        try:
            await until(lambda: ray.is_initialized() and asyncio.to_thread(lambda: states() == loading))
            await asyncio.sleep(CLAIMS_S)
            assert (await store.get(job_id)).state is JobState.QUEUED
        finally:
            gate.touch()
            await deployed
        job = await ended(store, job_id)
        assert (job.state, job.attempts) == (JobState.SUCCEEDED, 1)
