"""A bench for each test, or the store of a configuration."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from helios_services.config import RedisConfig, ServiceConfig
from helios_services.jobs.connector import Connector
from helios_services.jobs.store import JobStore
from services.deployments.bench import Bench


@pytest.fixture
async def bench(redis: RedisConfig, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(redis, tmp_path)
    yield bench
    await bench.store.close()


@pytest.fixture
async def store(config: ServiceConfig) -> AsyncIterator[JobStore]:
    """The fixture `config`, which the modules that deploy a whole service have of their own."""
    store = Connector(config.redis, config.jobs).store()
    yield store
    await store.close()
