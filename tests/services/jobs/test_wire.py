"""Between store and server: lost replies, dead connections, forgotten scripts, more callers than connections."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import unquote, urlsplit

import pytest

from helios_services.config import RedisConfig
from helios_services.jobs.connect import MAX_CONNECTIONS
from helios_services.jobs.connector import Connector
from helios_services.jobs.notify import Notifier
from helios_services.jobs.state import JobState
from helios_services.jobs.store import JobStore
from services.jobs.conftest import JOBS, append, claim, spec
from support.redis_clients import async_client


class Proxy:
    """Between a client and the server: swallows replies, or goes silent as a peer whose host has died."""

    def __init__(self, server_url: str) -> None:
        self._server_socket = unquote(urlsplit(server_url).path)
        self._server: asyncio.Server | None = None
        self._silenced: list[asyncio.Event] = []
        self._connections: set[asyncio.Task[None]] = set()
        self.replies_to_lose = 0
        self.url = ""

    async def start(self) -> None:
        """Listens on a free port; sets `url`."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def close(self) -> None:
        """Ends every connection."""
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def silence(self) -> None:
        """No byte passes on the connections that are open now, and none of them is closed."""
        for silenced in self._silenced:
            silenced.set()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(asyncio.create_task(self._relay(reader, writer)))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silenced = asyncio.Event()
        self._silenced.append(silenced)
        up_reader, up_writer = await asyncio.open_unix_connection(self._server_socket)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, replies: bool) -> None:
            while data := await source.read(1 << 16):
                if replies and self.replies_to_lose and not data.startswith(b"-NOSCRIPT"):
                    self.replies_to_lose -= 1
                    return
                if not silenced.is_set():
                    sink.write(data)
                    await sink.drain()

        pumps = [
            asyncio.create_task(pump(reader, up_writer, replies=False)),
            asyncio.create_task(pump(up_reader, writer, replies=True)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in (writer, up_writer):  # before anything is awaited: a cancellation may come here too
                end.close()
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, writer.wait_closed(), up_writer.wait_closed(), return_exceptions=True)


@pytest.fixture
async def proxy(redis: RedisConfig) -> AsyncIterator[Proxy]:
    proxy = Proxy(redis.url)
    await proxy.start()
    yield proxy
    await proxy.close()


async def test_lost_replies_have_one_effect_and_no_error(redis: RedisConfig, proxy: Proxy) -> None:
    """The store itself repeats a call whose reply was swallowed; nobody sees it."""
    store = Connector(redis.model_copy(update={"url": proxy.url}), JOBS).store()

    async def losing_one_reply() -> None:
        assert proxy.replies_to_lose == 0  # the previous one was really lost
        proxy.replies_to_lose = 1

    await losing_one_reply()
    await store.submit("a", spec(chunks=1))
    await losing_one_reply()
    claimed = await store.claim("m", "worker", "nonce")
    assert claimed is not None
    assert (claimed.job.attempts, claimed.lease.token) == (1, 1)
    await losing_one_reply()
    await append(store, claimed.lease, 0)
    await losing_one_reply()
    await store.begin_publish(claimed.lease)
    await losing_one_reply()
    ended = await store.succeed(claimed.lease, artifact="x", video_bytes=1)
    await losing_one_reply()
    assert len(await store.chunk_records(await store.get("a"))) == 1
    assert (ended.state, proxy.replies_to_lose) == (JobState.SUCCEEDED, 0)
    assert await store.ended() == {JobState.SUCCEEDED: 1}
    await store.close()


async def test_a_silent_connection_is_replaced(redis: RedisConfig, proxy: Proxy, store: JobStore) -> None:
    notifier = Notifier(redis.model_copy(update={"url": proxy.url, "socket_timeout_s": 0.3}))
    await notifier.start()
    with notifier.queue("m") as queue:
        assert await queue.wait(60)  # the subscription is up
        proxy.silence()
        await store.submit("a", spec())
        assert await queue.wait(60)  # woken by the new subscription
        await store.submit("b", spec())
        assert await queue.wait(60)  # and notified over it
    await notifier.close()


async def test_more_callers_than_connections_wait_their_turn(store: JobStore) -> None:
    await store.submit("a", spec())
    jobs = await asyncio.gather(*(store.get("a") for _ in range(MAX_CONNECTIONS * 8)))
    assert {job.id for job in jobs} == {"a"}


async def test_a_server_that_forgot_the_scripts_is_taught_again(store: JobStore, redis: RedisConfig) -> None:
    await store.submit("a", spec())
    lease = (await claim(store)).lease
    await append(store, lease, 0)
    async with async_client(redis.url) as client:
        await client.script_flush()
    await append(store, lease, 1)
    assert (await store.get("a")).chunks_done == 2
