"""A cluster that comes up takes no job before it can make it."""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
import ray
import yaml
from ray import serve
from ray.serve.schema import ReplicaState

from helios_services.config import RedisConfig, ServiceConfig, load_config
from helios_services.deployments.dispatch.stages import Denoised
from helios_services.deployments.serving import APP_NAME, serving, settled
from helios_services.jobs.records import JobSpec
from helios_services.jobs.state import JobState
from helios_services.jobs.store import JobStore

PARAMS = {"prompt": "a lake", "height": 64, "width": 64, "num_frames": 33, "fps": 24, "pyramid_steps": [1, 1, 1]}
CLAIMS_S = 3.0
"""Dispatchers look for jobs several times in this."""


@pytest.fixture
def config(checkpoint: Path, redis: RedisConfig, tmp_path: Path) -> ServiceConfig:
    small = {"num_cpus": 0.1, "torch_threads": 1}
    file = tmp_path / "config.yaml"
    sections = {
        "state_dir": str(tmp_path),
        "log_level": "warning",
        "redis": redis.model_dump(),
        "model": {"checkpoint": str(checkpoint), "dtype": "float32"},
        "jobs": {"lease_s": 120},
        "dispatcher": {"metrics_port": 0},
        "text_encoder": small,
        "denoiser": small,
        "decoder": small,
    }
    file.write_text(yaml.safe_dump(sections))
    return settled(load_config(file, {}))


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


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - the controller has no event for it
            await asyncio.sleep(0.2)


async def test_jobs_wait_in_the_queue_until_the_denoiser_is_loaded(
    config: ServiceConfig, store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    monkeypatch.setattr("helios_services.deployments.replicas.denoiser.DenoiserReplica", slow_to_load(gate))
    spec = JobSpec(model=config.model.name, params=PARAMS, chunks_total=1)
    job_id = (await store.submit(uuid4().hex, spec)).id
    loading = {name: {"RUNNING"} for name in ("text-encoder", "decoder", "dispatcher")} | {"denoiser": {"STARTING"}}
    with ExitStack() as stack:
        deployed = asyncio.create_task(asyncio.to_thread(stack.enter_context, serving(config)))
        try:
            await until(lambda: ray.is_initialized() and states() == loading)
            await asyncio.sleep(CLAIMS_S)
            assert (await store.get(job_id)).state is JobState.QUEUED
        finally:
            gate.touch()
            await deployed
        async with asyncio.timeout(120):
            while (await store.get(job_id)).ended_s is None:  # noqa: ASYNC110 - another's change
                await asyncio.sleep(0.1)
        job = await store.get(job_id)
        assert (job.state, job.attempts) == (JobState.SUCCEEDED, 1)
