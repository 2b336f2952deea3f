"""A real redis-server for the session, a namespace of its own for each test."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from helios_services.config import RedisConfig
from helios_services.jobs.embedded import EmbeddedRedis


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis.start(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis(server: EmbeddedRedis) -> RedisConfig:
    """Patient: a process that is not scheduled for some seconds is no outage."""
    return RedisConfig(url=server.url, namespace=uuid4().hex, socket_timeout_s=30.0)
