"""Clients of Redis with which tests look behind the store: patient, for a stalled machine is no outage."""

from contextlib import suppress
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError

PATIENCE: dict[str, Any] = {"socket_timeout": 60.0, "socket_connect_timeout": 60.0}


def async_client(url: str, **options: Any) -> AsyncRedis:
    return AsyncRedis.from_url(url, **PATIENCE, **options)


def blocking_client(url: str, **options: Any) -> Redis:
    return Redis.from_url(url, **PATIENCE, **options)


def answers(client: Redis) -> bool:
    """Whether the server is up, and takes the client."""
    with suppress(RedisError):
        return bool(client.ping())
    return False
