"""Tells local waiters when something changed in Redis: one pub/sub connection per process, however many waiters.

Messages can be lost (a cut connection), so a waiter looks again after a time of its own, and everyone is woken after a
reconnection.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import structlog
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from helios_services.config import RedisConfig
from helios_services.jobs.connect import listening_client
from helios_services.jobs.keys import Keys
from helios_services.tasks import cancelled

log = structlog.get_logger(__name__)
RECONNECT_S = 1.0


class Watch:
    """Waits for changes since it was made."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Marks a change."""
        self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        """True as soon as something changed since the last wait (or since the start), False after `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        changed = self._event.is_set()
        self._event.clear()
        return changed


class Notifier:
    """Fans the store's two channels out to watches."""

    def __init__(self, redis: RedisConfig) -> None:
        self._keys = Keys(redis.namespace)
        self._redis, self._timeout_s = redis, redis.socket_timeout_s
        self._watches: defaultdict[tuple[str, str], set[Watch]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None
        self._reachable = True

    async def start(self) -> None:
        """Starts listening (in the background: Redis need not be up)."""
        self._task = asyncio.create_task(self._listen(), name="notifier")

    async def close(self) -> None:
        """Stops listening."""
        if self._task is not None:
            await cancelled(self._task)

    def job(self, job_id: str) -> contextlib.AbstractContextManager[Watch]:
        """Changes of one job."""
        return self._watch(("changed", job_id))

    def queue(self, model: str) -> contextlib.AbstractContextManager[Watch]:
        """Arrivals in one model's queue."""
        return self._watch(("queued", model))

    def wake_all(self) -> None:
        """Makes everyone look."""
        for watches in self._watches.values():
            for watch in watches:
                watch.wake()

    @contextlib.contextmanager
    def _watch(self, topic: tuple[str, str]) -> Iterator[Watch]:
        watch = Watch()
        self._watches[topic].add(watch)
        try:
            yield watch
        finally:
            self._watches[topic].discard(watch)
            if not self._watches[topic]:
                del self._watches[topic]

    async def _listen(self) -> None:
        while True:
            client: Any = listening_client(self._redis)
            try:
                async with client, client.pubsub() as pubsub:
                    await self._receive(pubsub)
            except (RedisError, OSError) as error:
                if self._reachable:
                    log.warning("redis_notifications_lost", error=str(error))
                self._reachable = False
                await asyncio.sleep(RECONNECT_S)

    async def _receive(self, pubsub: PubSub) -> None:
        """Hands messages on until the connection fails, or is silent for two timeouts in spite of a ping."""
        channels = (self._keys.of("changed"), self._keys.of("queued"))
        await pubsub.subscribe(*channels)
        pinged = False
        while True:
            message = await pubsub.get_message(timeout=self._timeout_s)
            if message is None:
                if pinged:
                    raise RedisConnectionError("no answer to a ping")
                await pubsub.ping()
            elif message["type"] == "subscribe" and message["data"] == len(channels):
                self._subscribed()
            elif message["type"] == "message":
                topic = (message["channel"].decode().removeprefix(self._keys.root), message["data"].decode())
                for watch in self._watches.get(topic, ()):
                    watch.wake()
            pinged = message is None

    def _subscribed(self) -> None:
        if not self._reachable:
            log.info("redis_notifications_back")
        self._reachable = True
        self.wake_all()  # what changed before the subscription was in force went unheard
