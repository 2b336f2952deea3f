"""The job store as an ACL user with the rights that docs/security.md gives it: all of it works, nothing else does."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from uuid import uuid4

import pytest
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError

from helios_services.config import ConfigError, RedisConfig
from helios_services.jobs.connector import Connector
from helios_services.jobs.credentials import connection_options
from helios_services.jobs.embedded import EmbeddedRedis
from helios_services.jobs.errors import MediaFull, QuotaExceeded, StoreUnavailable
from helios_services.jobs.heartbeat import Heartbeat
from helios_services.jobs.notify import Notifier
from helios_services.jobs.records import NOBODY, Account, Media
from helios_services.jobs.store import JobStore
from services.jobs import test_interactive, test_leases, test_store, test_work
from services.jobs.conftest import JOBS, claim, spec
from support.redis_clients import async_client, blocking_client

GUIDE = Path(__file__).parents[3] / "docs" / "security.md"
OTHER_NAMESPACES = {"test_scripts_allow_what_the_table_allows_and_nothing_else"}
"""What makes namespaces of its own, which this user cannot enter."""
USER, PASSWORD = "helios", "correct-horse-battery"


def _tests(*modules: ModuleType) -> dict[str, object]:
    return {
        f"{name}__{module.__name__.rpartition('.')[2]}": value
        for module in modules
        for name, value in vars(module).items()
        if name.startswith("test_") and callable(value) and name not in OTHER_NAMESPACES
    }


globals().update(_tests(test_store, test_leases, test_interactive, test_work))  # once more, as this user


def rights(namespace: str) -> list[str]:
    """The rules of the documented `ACL SETUSER` line, for a namespace."""
    line = next(line for line in GUIDE.read_text().splitlines() if line.startswith("ACL SETUSER "))
    rules = line.split()[3:]
    return [re.sub("default", namespace, rule) for rule in rules if not rule.startswith(">")]


@pytest.fixture
def redis(server: EmbeddedRedis, tmp_path: Path) -> Iterator[RedisConfig]:
    """The store connects as the ACL user; tests that open the URL by themselves are administrators."""
    namespace = uuid4().hex
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    with blocking_client(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", USER, "reset", f">{PASSWORD}", *rights(namespace))
        admin.acl_log_reset()
        yield RedisConfig(
            url=server.url, namespace=namespace, socket_timeout_s=30.0, username=USER, password_file=str(file)
        )
        # redis-py tells and asks the server about itself (CLIENT ...), and takes a refusal for an answer
        denied = [entry for entry in admin.acl_log() if entry["object"] != "client"]
        admin.execute_command("ACL", "DELUSER", USER)
    assert denied == []


@pytest.fixture
def stranger(server: EmbeddedRedis) -> Iterator[AsyncRedis]:
    """The user itself, with its hands free."""
    with blocking_client(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "stranger", "reset", f">{PASSWORD}", *rights("mine"))
    yield async_client(server.url, username="stranger", password=PASSWORD)
    with blocking_client(server.url) as admin:
        admin.execute_command("ACL", "DELUSER", "stranger")


async def test_heartbeats_and_notifications(store: JobStore, redis: RedisConfig) -> None:
    notifier = Notifier(redis)
    await notifier.start()
    heartbeat = Heartbeat(redis, JOBS.model_copy(update={"heartbeat_s": 0.05}))
    with notifier.queue("m") as queue:
        await store.submit("a", spec())
        assert await queue.wait(30)
        lease = (await claim(store)).lease
    lost: list[str] = []
    heartbeat.add(lease, lambda: lost.append(lease.job_id))
    with notifier.job("a") as watch:
        await store.release(lease)
        assert await watch.wait(30)
        while not lost:
            await watch.wait(0.05)
    heartbeat.close()
    await notifier.close()


async def test_uploads_and_webhooks(store: JobStore) -> None:
    account = Account(id="acme", max_uploads=2, max_upload_bytes=10)
    for name in ("m1.png", "m2.png"):
        await store.reserve_media(name, 5, lease_s=60, max_files=5, account=account)
    with pytest.raises(QuotaExceeded, match="max_uploads of this API key's account is 2"):
        await store.reserve_media("m3.png", 5, lease_s=60, max_files=5, account=account)
    media = Media(id="m1", name="m1.png", content_type="image/png", size_bytes=3, expire_s=0.0, tenant="acme")
    await store.add_media(media, ttl_s=60, account=account)
    await store.forget_media(["m2.png"], account)
    with pytest.raises(QuotaExceeded, match="max_upload_bytes"):
        await store.reserve_media("m4.png", 8, lease_s=60, max_files=5, account=account)
    await store.reserve_media("m4.png", 7, lease_s=60, max_files=5, account=account)
    with pytest.raises(MediaFull, match="2 uploads are kept"):
        await store.reserve_media("m5.png", 1, lease_s=60, max_files=2, account=NOBODY)
    job = replace(spec(), image_id="m1", tenant="acme", webhook_url="https://hooks.example/a")
    await store.submit("a", job)
    await store.cancel("a")
    due = await store.due_webhook(uuid4().hex, lease_s=60)
    assert due is not None
    assert due.lane == "acme https://hooks.example:443"
    await store.settle_webhook(due, again_in_s=0.0)
    assert await store.due_webhook(uuid4().hex, lease_s=60, busy=[due.lane]) is None
    again = await store.due_webhook(uuid4().hex, lease_s=60)
    assert again is not None
    assert again.tries == 2
    await store.settle_webhook(again)


@pytest.mark.parametrize(
    "command",
    [
        ("FLUSHALL",),
        ("FLUSHDB",),
        ("CONFIG", "GET", "*"),
        ("CONFIG", "SET", "dir", "/tmp"),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("SAVE",),
        ("SHUTDOWN", "NOSAVE"),
        ("BGREWRITEAOF",),
        ("MODULE", "LIST"),
        ("REPLICAOF", "127.0.0.1", "1"),
        ("ACL", "LIST"),
        ("CLIENT", "LIST"),
        ("MONITOR",),
        ("SCRIPT", "FLUSH"),
        ("HGETALL", "helios:{other}:job:a"),
        ("GET", "helios:{mine2}:seq"),
        ("EVAL", "return redis.call('GET', 'helios:{other}:seq')", "0"),
        ("EVAL", "return redis.call('FLUSHALL')", "0"),
        ("PUBLISH", "helios:{other}:changed", "a"),
        ("SUBSCRIBE", "helios:{other}:changed"),
    ],
    ids=" ".join,
)
async def test_what_the_user_may_not(stranger: AsyncRedis, command: tuple[str, ...]) -> None:
    async with stranger:
        assert await stranger.get("helios:{mine}:seq") is None
        with pytest.raises(RedisError, match=r"(?i)no permissions|can't run this|can't access"):
            await stranger.execute_command(*command)  # type: ignore[no-untyped-call]


async def test_a_new_password_in_the_file_is_used_without_a_restart(server: EmbeddedRedis, redis: RedisConfig) -> None:
    store = Connector(redis, JOBS).store()
    await store.submit("a", spec())
    with blocking_client(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", USER, "resetpass", ">another-secret")
        admin.client_kill_filter(user=USER)
        with pytest.raises(StoreUnavailable, match=r"(?i)invalid username-password pair"):
            await store.get("a")
        Path(redis.password_file).write_text("another-secret")
        assert (await store.get("a")).id == "a"
        admin.acl_log_reset()  # the attempts in between
    await store.close()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"password_file": "/nonexistent/p"}, ["redis.password_file", "/nonexistent/p", "No such file"]),
        ({"username": "u"}, ["redis.username", "without redis.password_file"]),
        ({"url": "redis://u:hunter22@h/0", "password_file": __file__}, ["redis.password_file", "one of both"]),
        ({"tls_ca_file": __file__}, ["redis.tls_ca_file", "not rediss://"]),
        ({"url": "rediss://h/0", "tls_ca_file": "/nonexistent/ca"}, ["redis.tls_ca_file", "/nonexistent/ca"]),
        ({"url": "rediss://h/0", "tls_key_file": __file__}, ["redis.tls_certificate_file", "together"]),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(options: dict[str, str], named: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        connection_options(RedisConfig(**{"url": "redis://h/0"} | options))
    for part in named:
        assert part in str(caught.value)
    assert "hunter22" not in str(caught.value)
