"""A bench for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from helios_services.config import RedisConfig
from services.deployments.bench import Bench


@pytest.fixture
async def bench(redis: RedisConfig, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(redis, tmp_path)
    yield bench
    await bench.store.close()
