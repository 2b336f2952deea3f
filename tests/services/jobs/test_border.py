"""The border of the job store: only `jobs/` knows that it is Redis, and everyone else sees the store's own errors."""

import re
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, OutOfMemoryError, RedisError, ResponseError

import helios_services
from helios_services.config import RedisConfig
from helios_services.jobs.connect import answered
from helios_services.jobs.connector import Connector
from helios_services.jobs.embedded import free_port
from helios_services.jobs.errors import JobStoreError, StorageFull, StoreUnavailable
from services.jobs.conftest import JOBS, spec

PACKAGE = Path(helios_services.__file__).parent


IMPORTS_REDIS = re.compile(r"^\s*(import|from)\s+redis\b", re.MULTILINE)


def test_only_the_job_store_imports_redis() -> None:
    files = {file for file in PACKAGE.rglob("*.py") if IMPORTS_REDIS.search(file.read_text())}
    assert PACKAGE / "jobs" / "connect.py" in files
    assert {file.relative_to(PACKAGE).parts[0] for file in files} == {"jobs"}


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (RedisConnectionError("refused"), StoreUnavailable),
        (NoPermissionError("no"), StoreUnavailable),
        (ResponseError("user_script: WRONGTYPE"), StoreUnavailable),
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), StorageFull),
        (ResponseError("user_script:1: -OOM command not allowed when used memory > 'maxmemory'"), StorageFull),
    ],
)
def test_errors_of_redis_become_those_of_the_store(error: RedisError, seen: type[Exception]) -> None:
    with pytest.raises(seen), answered():
        raise error


async def test_a_store_that_cannot_be_reached() -> None:
    store = Connector(RedisConfig(url=f"redis://127.0.0.1:{free_port()}/0"), JOBS).store()
    for call in (
        store.submit("a", spec()),
        store.cancel("a"),
        store.claim("m", "w", "n"),
        store.get("a"),
        store.page(limit=1),
        store.fragment("a", 0),
        store.depths("m"),
        store.ended(),
        store.dead_letters(),
        store.sweep(),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            await call
        assert not isinstance(caught.value, JobStoreError)  # it has refused nothing
    await store.close()
