"""The job store over TLS, where a redis-server that can do that is installed."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helios_services.config import RedisConfig
from helios_services.jobs.connector import Connector
from helios_services.jobs.embedded import free_port
from helios_services.jobs.errors import StoreUnavailable
from helios_services.jobs.heartbeat import Heartbeat
from helios_services.jobs.notify import Notifier
from services.jobs.conftest import JOBS, claim, spec
from support.authority import Authority
from support.redis_clients import answers, blocking_client
from support.waiting import wait_until


def able_server() -> str | None:
    """The first redis-server on PATH that was built with TLS: without files it says that it misses them."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        binary = Path(folder) / "redis-server"
        if os.access(binary, os.X_OK):
            command = [str(binary), "--port", "0", "--tls-port", str(free_port())]
            said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout
            if "tls-cert-file" in said:
                return str(binary)
    return None


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "ours")


@pytest.fixture(scope="module")
def tls_redis(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisConfig]:
    binary = able_server()
    if binary is None:
        pytest.skip("no redis-server on PATH was built with TLS (Debian's and Redis' own packages are)")
    certificate, key = authority.issue("server")
    port = free_port()
    options = {
        "port": "0",
        "tls-port": str(port),
        "bind": "127.0.0.1",
        "dir": str(tmp_path_factory.mktemp("tls-redis")),
        "save": "",
        "tls-cert-file": str(certificate),
        "tls-key-file": str(key),
        "tls-ca-cert-file": str(authority.file),
        "tls-auth-clients": "yes",
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    own_certificate, own_key = authority.issue("store")
    config = RedisConfig(
        url=f"rediss://localhost:{port}/0",
        tls_ca_file=str(authority.file),
        tls_certificate_file=str(own_certificate),
        tls_key_file=str(own_key),
    )
    with subprocess.Popen([binary, *flags], stdout=subprocess.DEVNULL) as process:
        try:
            files = {
                "ssl_ca_certs": config.tls_ca_file,
                "ssl_certfile": config.tls_certificate_file,
                "ssl_keyfile": config.tls_key_file,
            }
            with blocking_client(config.url, **files) as client:
                wait_until(lambda: answers(client))
            yield config
        finally:
            process.terminate()


async def test_store_heartbeat_and_notifications_over_mutual_tls(tls_redis: RedisConfig) -> None:
    store, notifier = Connector(tls_redis, JOBS).store(), Notifier(tls_redis)
    await notifier.start()
    with notifier.queue("m") as queue:
        await store.submit("a", spec())
        assert await queue.wait(30)
    lost: list[str] = []
    heartbeat = Heartbeat(tls_redis, JOBS.model_copy(update={"heartbeat_s": 0.05}))
    heartbeat.add((await claim(store)).lease, lambda: lost.append("a"))
    await store.cancel("a")
    with notifier.job("other") as watch:
        while not lost:
            await watch.wait(0.05)
    heartbeat.close()
    await notifier.close()
    await store.close()


@pytest.mark.parametrize("wrong", ["authority", "name", "no certificate", "certificate of others"])
async def test_the_other_end_has_to_be_who_it_should(
    tls_redis: RedisConfig, authority: Authority, wrong: str, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "theirs")
    certificate, key = stranger.issue("stranger")
    changes = {
        "authority": {"tls_ca_file": str(stranger.file)},
        "name": {"url": tls_redis.url.replace("localhost", "127.0.0.1")},  # which the certificate does not name
        "no certificate": {"tls_certificate_file": "", "tls_key_file": ""},
        "certificate of others": {"tls_certificate_file": str(certificate), "tls_key_file": str(key)},
    }[wrong]
    store = Connector(tls_redis.model_copy(update=changes), JOBS).store()
    with pytest.raises(StoreUnavailable):
        await store.submit("b", spec())
    await store.close()
