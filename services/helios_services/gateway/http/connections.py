"""Connections of the HTTP door: what one client can take of it, each limit chosen on purpose."""

import asyncio
import contextlib
import json
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from helios_services.gateway.guard.patience import MESSAGE_S
from helios_services.gateway.guard.refusal import Code, Refusal
from helios_services.gateway.http.envelope import envelope

MAX_HEAD_BYTES = 16 * 1024
"""The most that a request's line and headers may take: as much as a gRPC call's metadata."""
IDLE_S = 60
"""A connection without a request is closed."""
KEEPALIVE_S, KEEPALIVE_EVERY_S, KEEPALIVE_TRIES = 30, 5, 2
"""A silent peer that is gone without a word is noticed by the kernel's probes, and its calls end."""
MAX_MESSAGE_BYTES = 64 * 1024
"""The largest message that a client may send on a WebSocket."""
MAX_QUEUED = 8
"""Such messages that wait to be read."""


class Connection(H11Protocol):
    """A connection whose first request must come soon, and whose requests are refused in the envelope."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            _keep_alive(sock)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._head_is_there()
        elif self._late is None and not self.transport.is_closing():
            self._expect_head()  # a head that has begun: the idle time ends with its first byte

    def on_response_complete(self) -> None:
        """Called at the end of each answer."""
        self._head_is_there()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._head_is_there()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Called for what is no HTTP request, and for too large a head."""
        allowed = f"allowed: HTTP/1.1, with at most {MAX_HEAD_BYTES:,} bytes of head"
        body = json.dumps(envelope(Refusal(Code.INVALID_ARGUMENT, f"{msg} {allowed}"))).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        answer = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        with contextlib.suppress(h11.LocalProtocolError):  # an answer is on its way already
            for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _expect_head(self) -> None:
        self._late = self.loop.call_later(MESSAGE_S, self.transport.close)

    def _head_is_there(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def _keep_alive(sock: Any) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_EVERY_S),
        ("TCP_KEEPCNT", KEEPALIVE_TRIES),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
