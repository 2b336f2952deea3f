"""The clients of Redis, of one server or of a cluster: made here and nowhere else, and their errors told apart.

All keys share a hash tag, so one node of a cluster has them all; the others say which one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis.asyncio as aio
from redis import Redis, RedisCluster
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisClusterException, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from helios_services.config import RedisConfig
from helios_services.jobs.credentials import connection_options
from helios_services.jobs.errors import StorageFull, StoreUnavailable

MAX_CONNECTIONS = 64
"""Per store; calls beyond wait for a connection, at most `socket_timeout_s`, rather than fail at once."""
MAX_CLUSTER_CONNECTIONS = 512
"""Per store and node of a cluster; calls beyond fail at once, for redis-py has no waiting there."""
FULL_RETRY_S = 30.0


@contextmanager
def answered() -> Iterator[None]:
    """Redis' errors become the store's: StoreUnavailable, and StorageFull at maxmemory."""
    try:
        yield
    except OutOfMemoryError:
        raise _full() from None
    except ResponseError as error:  # at maxmemory within a script: its text begins otherwise
        if "OOM command not allowed" in str(error):
            raise _full() from None
        raise StoreUnavailable(str(error)) from error
    except RedisError as error:
        raise StoreUnavailable(str(error)) from error


def _full() -> StorageFull:
    return StorageFull("the job store is out of memory", retry_after_s=FULL_RETRY_S)


def store_client(config: RedisConfig) -> aio.Redis | aio.RedisCluster:
    """For the store's calls, which may be repeated: it repeats those that fail on the wire. Connects on first use."""
    timeout_s = config.socket_timeout_s
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": AsyncRetry(ExponentialBackoff(cap=0.5, base=0.05), 2, (RedisConnectionError, RedisTimeoutError)),
        "health_check_interval": 15,
        **connection_options(config),
    }
    if config.cluster:
        return AsyncCluster.from_url(config.url, max_connections=MAX_CLUSTER_CONNECTIONS, **options)
    pool = aio.BlockingConnectionPool.from_url(
        config.url, max_connections=MAX_CONNECTIONS, timeout=timeout_s, **options
    )
    return aio.Redis.from_pool(pool)


def listening_client(config: RedisConfig) -> aio.Redis | aio.RedisCluster:
    """For a subscription: its user repeats, and pings. Connects on first use."""
    options: dict[str, Any] = {
        "socket_timeout": config.socket_timeout_s,
        "socket_connect_timeout": config.socket_timeout_s,
        "retry": AsyncRetry(NoBackoff(), 0),
        "health_check_interval": 0,
        **connection_options(config),
    }
    kind: Any = AsyncCluster if config.cluster else aio.Redis
    client: aio.Redis | aio.RedisCluster = kind.from_url(config.url, **options)
    return client


def blocking_client(config: RedisConfig, timeout_s: float) -> Redis | RedisCluster:
    """For a thread: calls fail after `timeout_s`. To a cluster, connects here. Raises RedisError."""
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        **connection_options(config),
    }
    if not config.cluster:
        return Redis.from_url(config.url, **options)
    with _as_redis_errors():
        return Cluster.from_url(config.url, **options)


class AsyncCluster(aio.RedisCluster):
    """A cluster that cannot be reached is a connection that failed, as with one server."""

    async def initialize(self, *args: Any, **kwargs: Any) -> Any:
        """Raises RedisError."""
        with _as_redis_errors():
            return await super().initialize(*args, **kwargs)


class Cluster(RedisCluster):
    """The same as AsyncCluster, for threads."""

    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """Raises RedisError."""
        with _as_redis_errors():
            return super().execute_command(*args, **kwargs)  # type: ignore[no-untyped-call]


@contextmanager
def _as_redis_errors() -> Iterator[None]:
    """redis-py's RedisClusterException is no RedisError."""
    try:
        yield
    except RedisClusterException as error:
        raise RedisConnectionError(str(error)) from error
