"""A gateway on loopback over a real Redis, and a worker's hand to move jobs along."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from helios_services.client import AsyncHeliosClient
from helios_services.config import GatewayConfig, JobsConfig, RedisConfig, ServiceConfig
from helios_services.gateway.server import Gateway
from helios_services.jobs.connector import Connector
from helios_services.jobs.records import ChunkRecord, Claim
from helios_services.media.artifacts import ArtifactStore
from support.gateway import serving

BY_HAND = JobsConfig(max_queued=5, lease_s=600.0)
"""Nobody renews the leases of the test's own worker."""


class Worker:
    """Does to the store what a worker does, with recognisable bytes instead of video."""

    def __init__(self, config: ServiceConfig) -> None:
        self.store, self.redis = Connector(config.redis, config.jobs).store(), config.redis
        self._artifacts, self._model = ArtifactStore(config.artifacts), config.model.name

    async def claim(self) -> Claim:
        claim = await self.store.claim(self._model, "worker", uuid4().hex)
        assert claim is not None
        return claim

    async def append(self, claim: Claim, index: int, size: int = 2_500_000) -> None:
        record = ChunkRecord(
            index=index,
            num_frames=33,
            start_s=index * 1.375,
            duration_s=1.375,
            size_bytes=size,
            stage_s={"denoise": 0.5, "decode": 0.25},
        )
        await self.store.append_chunk(
            claim.lease, record, fragment(index, size), init_segment=b"init", checkpoint=b"state"
        )

    async def publish(self, claim: Claim, video: bytes, folder: Path) -> None:
        await self.store.begin_publish(claim.lease)
        file = folder / "video"
        await asyncio.to_thread(file.write_bytes, video)
        name = f"{claim.job.id}.mp4"
        await asyncio.to_thread(self._artifacts.publish, file, name)
        await self.store.succeed(claim.lease, artifact=name, video_bytes=len(video))


def fragment(index: int, size: int = 2_500_000) -> bytes:
    """The bytes of chunk `index`."""
    return bytes([index + 1]) * size


@pytest.fixture
def config(redis: RedisConfig, tmp_path: Path) -> ServiceConfig:
    return ServiceConfig(
        state_dir=tmp_path, redis=redis, jobs=BY_HAND, gateway=GatewayConfig(port=0, http_port=0, drain_s=1.5)
    )


@pytest.fixture
async def gateway(config: ServiceConfig) -> AsyncIterator[Gateway]:
    async with serving(config) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[AsyncHeliosClient]:
    async with AsyncHeliosClient(f"127.0.0.1:{gateway.port}") as client:
        yield client


@pytest.fixture
async def worker(config: ServiceConfig) -> AsyncIterator[Worker]:
    worker = Worker(config)
    yield worker
    await worker.store.close()
