"""A TCP proxy that a test puts between two processes, to make the network between them fail."""

import contextlib
import hashlib
import socket
import struct
import threading
import time
from enum import Enum, auto
from typing import Self

from helios_services.jobs.scripts import source

POLL_S = 0.05
READ_BYTES = 1 << 16


class Mode(Enum):
    """What happens to connections."""

    PASS = auto()
    CUT = auto()
    """Open connections are reset, new ones at once."""
    HALF_OPEN = auto()
    """Connections that are open now never carry a byte again, nor end; new ones are accepted and go unanswered."""


class FaultProxy:
    """Listens on a loopback port of its own for one target. One thread a direction, which suits tens of connections."""

    def __init__(self, target_port: int) -> None:
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.mode = Mode.PASS
        self.delay_s = 0.0
        """Every answer comes this much later."""
        self.swallowed: list[bytes] = []
        """Needles whose answer was swallowed."""
        self._needles: list[bytes] = []
        self._muted: bytes | None = None
        self._connections: set[_Connection] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """As a Redis URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    def set(self, mode: Mode) -> None:
        """Applies to what is open and to what comes."""
        self.mode = mode
        for connection in self._open():
            if mode is Mode.CUT:
                connection.reset()
            elif mode is Mode.HALF_OPEN:
                connection.silent.set()

    def drop(self) -> None:
        """Resets what is open; new connections pass."""
        for connection in self._open():
            connection.reset()

    def swallow(self, *needles: bytes) -> None:
        """The next request with each of these bytes reaches the target; its answer is lost with the connection."""
        with self._lock:
            self._needles += needles

    def mute(self, needle: bytes) -> None:
        """Requests with these bytes reach the target; no answer comes on their connections any more, nor an end."""
        self._muted = needle

    def mutes(self, request: bytes) -> bool:
        """Whether this request's connection goes mute."""
        return self._muted is not None and self._muted in request

    def takes(self, request: bytes) -> bytes | None:
        """The needle that this request has, if its answer is to be swallowed."""
        with self._lock:
            for needle in self._needles:
                if needle in request:
                    self._needles.remove(needle)
                    return needle
        return None

    def close(self) -> None:
        """Ends everything."""
        self._closed.set()
        self._listener.close()
        self.drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def forget(self, connection: "_Connection") -> None:
        """A connection has ended."""
        with self._lock:
            self._connections.discard(connection)

    def _open(self) -> list["_Connection"]:
        with self._lock:
            return list(self._connections)

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.mode is Mode.CUT:
                _reset(client)
                continue
            connection = _Connection(self, client, self._target)
            if self.mode is Mode.HALF_OPEN:
                connection.silent.set()
            with self._lock:
                self._connections.add(connection)
            connection.start()


class _Connection:
    def __init__(self, proxy: FaultProxy, client: socket.socket, target: tuple[str, int]) -> None:
        self._proxy, self._client, self._target = proxy, client, target
        self._server: socket.socket | None = None
        self.silent = threading.Event()
        self._losing, self._mute = threading.Event(), threading.Event()

    def start(self) -> None:
        try:
            self._server = socket.create_connection(self._target, timeout=5)
            self._server.settimeout(None)
        except OSError:
            self.reset()
            return
        for copy in (self._requests, self._answers):
            threading.Thread(target=copy, daemon=True).start()

    def reset(self) -> None:
        """Both sides see a reset."""
        self._proxy.forget(self)
        for end in (self._client, self._server):
            if end is not None:
                _reset(end)

    def _requests(self) -> None:
        assert self._server is not None
        with contextlib.suppress(OSError):
            while data := self._client.recv(READ_BYTES):
                if self.silent.is_set():
                    continue
                needle = self._proxy.takes(data)
                if needle is not None:
                    self._losing.set()
                    self._proxy.swallowed.append(needle)
                if self._proxy.mutes(data):
                    self._mute.set()
                self._server.sendall(data)
        self._ended()

    def _answers(self) -> None:
        assert self._server is not None
        with contextlib.suppress(OSError):
            while data := self._server.recv(READ_BYTES):
                if self._losing.is_set():
                    break
                if self.silent.is_set() or self._mute.is_set():
                    continue
                if self._proxy.delay_s:
                    time.sleep(self._proxy.delay_s)
                self._client.sendall(data)
        self._ended()

    def _ended(self) -> None:
        if not self.silent.is_set():  # else its other side never learns
            self.reset()


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed already
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
    end.close()


def port_of(url: str) -> int:
    """The port in a redis:// URL."""
    return int(url.rsplit(":", 1)[1].split("/")[0])


def sha_of(script: str) -> bytes:
    """What a call of one of the store's scripts has in its bytes."""
    return hashlib.sha1(source(script).encode()).hexdigest().encode()
