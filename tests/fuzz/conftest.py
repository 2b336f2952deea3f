"""One gateway for all cases that reach it: what one case breaks, the next one finds."""

from collections.abc import Iterator

import pytest
from fuzz.target import Target

from helios_services.config import GatewayConfig, JobsConfig, MediaConfig, RedisConfig, ServiceConfig
from helios_services.jobs.embedded import EmbeddedRedis


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("fuzz")
    server = EmbeddedRedis.start(folder / "redis")
    config = ServiceConfig(
        state_dir=folder,
        redis=RedisConfig(url=server.url, socket_timeout_s=30.0),
        jobs=JobsConfig(max_queued=1_000_000),
        gateway=GatewayConfig(port=0, http_port=0, metrics_port=0, drain_s=2.0),
        media=MediaConfig(max_bytes=1_000_000, max_files=1_000_000),
    )
    target = Target(config, folder / "gateway.log")
    yield target
    target.close()
    server.stop()
