"""The Redis pods with a real redis-server: durable, TLS only, and each user has its rights."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from helios_services.jobs.connector import Connector
from helios_services.jobs.embedded import free_port
from k8s.build import ROOT
from k8s.redis_pod import redis_pod
from services.jobs.conftest import JOBS, spec

SERVERS = {
    "base": ("base/redis/job-store.conf", "base/redis/users.job-store", "always"),
    "production": ("overlays/production/redis.conf", "base/redis/users.job-store", "always"),
    "the head's": ("base/redis/gcs.conf", "base/redis/users.gcs", "everysec"),
}
STORE = {"conf": "base/redis/job-store.conf", "users": "base/redis/users.job-store"}


@pytest.mark.parametrize("name", SERVERS)
def test_it_keeps_what_it_is_given_and_knows_who_asks(name: str, tmp_path: Path) -> None:
    conf, users, synced = SERVERS[name]
    with redis_pod(tmp_path, free_port(), conf=conf, users=users) as pod:
        with pod.client("admin") as admin:
            assert admin.config_get("append*") == {
                "appendonly": "yes",
                "appendfsync": synced,
                "appendfilename": "appendonly.aof",
                "appenddirname": "appendonlydir",
            }
            assert admin.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert int(admin.config_get("maxmemory")["maxmemory"]) >= 512 * 2**20
        with Redis(port=pod.port) as plain, pytest.raises(RedisError):
            plain.ping()  # without TLS
        for user, password in (("default", "x"), ("admin", pod.password("admin") + "x")):
            with pod.client(user, password) as client, pytest.raises(AuthenticationError):
                client.ping()
        shown = Path(f"/proc/{pod.process.pid}/cmdline").read_text() + (tmp_path / "run/redis.conf").read_text()
        assert not [user for user in os.listdir(tmp_path / "passwords") if pod.password(user) in shown]
        assert (tmp_path / "run/redis.conf").stat().st_mode & 0o077 == 0
        assert pod.cli("sh /etc/redis/cli.sh admin ping") == "PONG\n"


async def test_gateways_and_dispatchers_work_as_the_stores_user(tmp_path: Path) -> None:
    with redis_pod(tmp_path, free_port(), **STORE) as pod:
        store = Connector(pod.config(), JOBS).store()
        await store.submit("a", spec())
        assert (await store.get("a")).id == "a"
        with pod.client("helios") as client:
            for command in ("FLUSHALL", "CONFIG GET *", "KEYS *", "GET helios:{other}:seq", "ACL LIST"):
                with pytest.raises(NoPermissionError):
                    client.execute_command(*command.split())
        with pod.client("exporter") as client:
            assert client.info("server")
            for command in ("GET helios:{default}:seq", "SCAN 0", "CONFIG GET *", "EVAL return(1) 0"):
                with pytest.raises(NoPermissionError):
                    client.execute_command(*command.split())
        await store.close()


async def test_its_password_is_changed_without_a_failed_call(tmp_path: Path) -> None:
    """By the lines of docs/kubernetes.md, with a stand-in for kubectl."""
    text = (ROOT / "docs/kubernetes.md").read_text()
    (block,) = re.findall(r"^```sh cluster\n(OLD=.*?)^```", text, re.MULTILINE | re.DOTALL)
    with redis_pod(tmp_path, free_port(), **STORE) as pod:
        kubectl = tmp_path / "tools" / "kubectl"
        kubectl.write_text(
            f"""#!/bin/sh
case "$*" in
    *"get secret"*) base64 -w0 < {tmp_path}/passwords/helios ;;
    *"patch secret"*) echo "$*" | sed 's/.*"password": "\\([0-9a-f]*\\)".*/\\1/' > {tmp_path}/passwords/helios ;;
    *exec*) exec sh {tmp_path}/tools/cli.sh admin ;;
esac
"""
        )
        kubectl.chmod(0o755)
        (tmp_path / "tools" / "sleep").symlink_to("/bin/true")
        old = pod.password("helios")
        store = Connector(pod.config(), JOBS).store()
        pod.cli(block)
        await store.submit("a", spec())
        await store.close()
        fresh = Connector(pod.config(), JOBS).store()  # a connection of its own, with what the file says now
        assert (await fresh.get("a")).id == "a"
        await fresh.close()
        assert pod.password("helios").strip() != old
        with pod.client("helios", old) as client, pytest.raises(AuthenticationError):
            client.ping()


def test_what_the_exporter_may_ask_is_enough_for_it(tmp_path: Path) -> None:
    binary = shutil.which("prometheus-redis-exporter")
    if binary is None:
        pytest.skip("no redis_exporter on PATH (Debian: prometheus-redis-exporter)")
    port = free_port()
    with redis_pod(tmp_path, free_port(), **STORE) as pod:
        environ = {
            **os.environ,
            "REDIS_ADDR": f"rediss://localhost:{pod.port}",
            "REDIS_USER": "exporter",
            "REDIS_PASSWORD": pod.password("exporter"),
            "REDIS_EXPORTER_TLS_CA_CERT_FILE": str(pod.tls / "ca.crt"),
            "REDIS_EXPORTER_CONFIG_COMMAND": "-",
            "REDIS_EXPORTER_SET_CLIENT_NAME": "false",
        }
        flags = ["-web.listen-address", f"127.0.0.1:{port}"]
        with subprocess.Popen([binary, *flags], env=environ, stderr=subprocess.DEVNULL) as process:
            try:
                text = _scrape(f"http://127.0.0.1:{port}/metrics")
            finally:
                process.terminate()
    for metric in ("redis_up 1", "redis_memory_max_bytes 6.442450944e+09", "redis_aof_enabled 1"):
        assert metric in text
    assert "redis_evicted_keys_total" in text
    with_settings = [line for line in text.splitlines() if "redis_config_" in line]
    assert with_settings == []


def _scrape(url: str) -> str:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urlopen(url) as answer:
                return str(answer.read().decode())
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
