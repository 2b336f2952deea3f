"""The Redis pods, here: their scripts, configuration and users, with the certificate that docs/kubernetes.md makes."""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from helios_services.config import RedisConfig
from k8s.build import K8S, ROOT
from services.jobs.test_redis_tls import able_server

START_S = 120.0
DOCUMENT = ROOT / "docs/kubernetes.md"


def certificate_commands() -> list[str]:
    """The lines of the document that make an authority and a certificate for the servers."""
    blocks: list[str] = re.findall(r"^```sh\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if "openssl" in block)
    return block.splitlines()


def make_certificate(folder: Path) -> Path:
    """What those commands make, and where; for this machine's name besides those of the Services."""
    for line in certificate_commands():
        here = line.replace("DNS:helios-redis,", "DNS:localhost,DNS:helios-redis,")
        subprocess.run(["sh", "-ec", here], cwd=folder, check=True, capture_output=True)
    return folder / "redis-tls"


@dataclass(frozen=True, kw_only=True)
class RedisPod:
    """A server that start.sh started, and what its containers would have mounted."""

    port: int
    folder: Path
    tls: Path
    process: "subprocess.Popen[bytes]"

    @property
    def environ(self) -> dict[str, str]:
        """The environment of commands in the pod: paths in place of the mounts, and a redis-cli that speaks TLS."""
        return _environ(self.folder, self.tls)

    def password(self, user: str) -> str:
        """The password of one of the users."""
        return (self.folder / "passwords" / user).read_text()

    def client(self, user: str, password: str = "") -> Redis:
        """A client that is one of the users; by default with that user's password."""
        options: dict[str, Any] = {"ssl": True, "ssl_ca_certs": str(self.tls / "ca.crt")}
        return Redis(port=self.port, username=user, password=password or self.password(user), **options)

    def config(self, **more: Any) -> RedisConfig:
        """How gateways and dispatchers connect."""
        return RedisConfig(
            url=f"rediss://localhost:{self.port}/0",
            username="helios",
            password_file=str(self.folder / "passwords" / "helios"),
            tls_ca_file=str(self.tls / "ca.crt"),
            socket_timeout_s=30.0,
            **more,
        )

    def cli(self, script: str, stdin: Path | None = None) -> str:
        """Runs what `kubectl exec` would run in the pod, and gives what it prints."""
        local = script.replace("/etc/redis/cli.sh", str(self.folder / "tools" / "cli.sh"))
        local = local.replace("/data", str(self.folder / "data"))
        command = ["sh", "-euc", local]
        with (stdin or Path(os.devnull)).open("rb") as source:
            done = subprocess.run(command, env=self.environ, stdin=source, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def _environ(folder: Path, tls: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{folder / 'tools'}:{os.environ['PATH']}",
        "CONF_DIR": str(folder / "conf"),
        "RUN_DIR": str(folder / "run"),
        "PASSWORDS_DIR": str(folder / "passwords"),
        "TLS_DIR": str(tls),
    }


@contextmanager
def redis_pod(folder: Path, port: int, *, conf: str, users: str) -> Iterator[RedisPod]:
    """A server of k8s/ on a loopback port. conf, users: files below k8s/. Skips without a server that has TLS."""
    binary = able_server()
    if binary is None:
        pytest.skip("no redis-server on PATH was built with TLS (Debian's and Redis' own packages are)")
    tls = folder / "redis-tls" if (folder / "redis-tls").exists() else make_certificate(folder)
    for name in ("conf", "run", "passwords", "data", "tools"):
        (folder / name).mkdir(exist_ok=True)
    text = (K8S / conf).read_text().replace("dir /data", f"dir {folder / 'data'}").replace("/etc/redis-tls", str(tls))
    (folder / "conf" / "redis.conf").write_text(text.replace("tls-port 6379", f"tls-port {port}"))
    (folder / "conf" / "users").write_text((K8S / users).read_text())
    for user in re.findall(r"^([a-z]+) ", (K8S / users).read_text(), re.MULTILINE):
        file = folder / "passwords" / user
        if not file.exists():
            file.write_text(os.urandom(8).hex())
    # in the container redis-cli's own port is the server's
    cli = (K8S / "base/redis/cli.sh").read_text().replace("redis-cli --tls", f"redis-cli -p {port} --tls")
    (folder / "tools" / "cli.sh").write_text(cli)
    for name, target in (("redis-server", binary), ("redis-cli", str(Path(binary).with_name("redis-cli")))):
        (folder / "tools" / name).unlink(missing_ok=True)
        (folder / "tools" / name).symlink_to(target)
    (folder / "tools" / "redis-check-rdb").unlink(missing_ok=True)
    (folder / "tools" / "redis-check-rdb").symlink_to(binary)
    command = ["sh", str(K8S / "base/redis/start.sh")]
    process = subprocess.Popen(command, env=_environ(folder, tls), stdout=subprocess.DEVNULL)
    pod = RedisPod(port=port, folder=folder, tls=tls, process=process)
    try:
        _wait_for(pod)
        yield pod
    finally:
        process.terminate()  # as the deletion of the pod does
        assert process.wait(120) == 0, "SIGTERM does not reach redis-server"


def _wait_for(pod: RedisPod) -> None:
    deadline = time.monotonic() + START_S
    with pod.client("admin") as client:
        while True:
            try:
                client.ping()
            except RedisError:
                assert pod.process.poll() is None, "the server did not start"
                assert time.monotonic() < deadline
                time.sleep(0.05)
            else:
                return
