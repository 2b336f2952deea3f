"""The embedded server, its persistence, notifications and a full memory."""

import os
import signal
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from helios_services.config import ConfigError, RedisConfig
from helios_services.jobs import embedded
from helios_services.jobs.connector import Connector
from helios_services.jobs.embedded import EmbeddedRedis
from helios_services.jobs.errors import StorageFull
from helios_services.jobs.notify import Notifier
from helios_services.jobs.state import JobState
from helios_services.jobs.store import JobStore
from services.jobs.conftest import JOBS, append, claim, spec
from support.redis_clients import async_client


async def test_processes_of_one_state_folder_share_the_server(tmp_path: Path) -> None:
    first = EmbeddedRedis.start(tmp_path)
    second = EmbeddedRedis.start(tmp_path)
    assert second.url == first.url
    second.stop()  # not its own: goes on
    made = [tmp_path / "redis", *(tmp_path / "redis").rglob("*")]
    assert [path for path in made if path.stat().st_mode & 0o077] == []
    async with async_client(first.url) as client:
        assert await client.config_get("port") == {"port": "0"}
        assert (await client.config_get("appendonly"))["appendonly"] == "yes"
    first.stop()


def test_a_server_that_does_not_answer_gets_no_second_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers on one append-only file would lose jobs."""
    server = EmbeddedRedis.start(tmp_path)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(embedded, "START_TIMEOUT_S", 0.1)
            with pytest.raises(ConfigError, match="does not answer"):
                EmbeddedRedis.start(tmp_path)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    other = EmbeddedRedis.start(tmp_path)
    assert other.url == server.url
    server.stop()


def test_a_server_that_answers_late_is_attached_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, running = EmbeddedRedis.start(tmp_path), embedded._running
    pid = server.pid
    assert pid is not None

    def late(record: Path) -> str | None:
        url = running(record)
        if url is None:
            os.kill(pid, signal.SIGCONT)
        return url

    monkeypatch.setattr(embedded, "_running", late)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert EmbeddedRedis.start(tmp_path).url == server.url
    finally:
        os.kill(pid, signal.SIGCONT)
        server.stop()


async def test_a_state_folder_too_deep_for_a_socket_gets_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("temporary " * 8 + "ä")
    deep.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    server = EmbeddedRedis.start(deep)
    assert EmbeddedRedis.start(deep).url == server.url
    socket = Path(unquote(urlsplit(server.url).path))
    assert socket.is_socket()
    assert socket.parent.stat().st_mode & 0o077 == 0
    async with async_client(server.url) as client:
        assert await client.ping()
    server.stop()
    assert not socket.parent.exists()


async def test_a_path_of_any_letters_is_good(tmp_path: Path) -> None:
    server = EmbeddedRedis.start(tmp_path / "a b?c#d%41 ü'\"")
    async with async_client(server.url) as client:
        assert await client.ping()
    server.stop()


def test_a_server_that_ends_at_once_is_told_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "redis" / "redis.sock" / "occupied").mkdir(parents=True)  # the socket cannot be made
    with pytest.raises(ConfigError, match=r"did not start; see .*redis\.log"):
        EmbeddedRedis.start(tmp_path)


async def test_kill_dash_nine_loses_no_accepted_job(tmp_path: Path) -> None:
    server = EmbeddedRedis.start(tmp_path)
    store = Connector(RedisConfig(url=server.url, socket_timeout_s=30.0), JOBS).store()
    for number in range(20):
        await store.submit(f"j{number}", spec())
    lease = (await claim(store)).lease
    await append(store, lease, 0)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await store.close()
    server.stop()
    server = EmbeddedRedis.start(tmp_path)
    store = Connector(RedisConfig(url=server.url, socket_timeout_s=30.0), JOBS).store()
    assert len((await store.page(limit=100)).jobs) == 20
    assert await store.fragment(lease.job_id, 0) == b"f0"
    await append(store, lease, 1)  # the lease is still good
    await store.close()
    server.stop()


async def test_at_maxmemory_submissions_are_refused_and_running_jobs_end(tmp_path: Path) -> None:
    server = EmbeddedRedis.start(tmp_path)
    store = Connector(RedisConfig(url=server.url, socket_timeout_s=30.0), JOBS).store()
    await store.submit("old", spec())
    await store.cancel("old")
    await store.submit("a", spec(chunks=1))
    await store.submit("b", spec(chunks=1))
    claimed = await claim(store)
    async with async_client(server.url) as client:
        await client.delete("helios:{default}:job:old")  # has expired: its entry in the index is to be removed
        await client.config_set("maxmemory", "100kb")
        await client.config_set("maxmemory-policy", "noeviction")
        with pytest.raises(StorageFull) as caught:
            await store.submit("c", spec())
        assert (caught.value.retry_after_s or 0) > 0
        await append(store, claimed.lease, 0)
        await store.begin_publish(claimed.lease)
        assert (await store.succeed(claimed.lease, artifact="x", video_bytes=1)).state is JobState.SUCCEEDED
        assert (await store.cancel("b")).state is JobState.CANCELLED
        await client.config_set("maxmemory", "0")
    assert (await store.submit("c", spec())).state is JobState.QUEUED
    await store.close()
    server.stop()


async def test_a_watch_sees_every_change_also_after_a_cut_connection(store: JobStore, redis: RedisConfig) -> None:
    notifier = Notifier(redis)
    await notifier.start()
    with notifier.queue("m") as queue, notifier.job("a") as job, notifier.job("other") as other:
        assert await queue.wait(60)  # the subscription is up
        await job.wait(0.0)
        await other.wait(0.0)
        await store.submit("a", spec())
        assert await queue.wait(60)
        assert await job.wait(60)
        assert not await other.wait(0.05)
        async with async_client(redis.url) as client:
            await client.client_kill_filter(_type="pubsub")
        await store.cancel("a")
        assert await job.wait(60)
    await notifier.close()
