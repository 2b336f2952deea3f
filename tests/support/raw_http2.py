"""An HTTP/2 client that may misbehave: a socket, and the h2 library's state machine where rules are to be kept."""

import socket
from collections.abc import Iterator
from typing import Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, Event, ResponseReceived, TrailersReceived

TIMEOUT_S = 60.0
FRAME_HEADER = 9


class RawClient:
    """A connection to a gateway on loopback."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self._unread = b""
        self.http2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def greet(self) -> None:
        """Preface and settings."""
        self.http2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Sends what the state machine has to say."""
        self.socket.sendall(self.http2.data_to_send())

    def call(self, method: str, body: bytes, *headers: tuple[str, str]) -> int:
        """Starts a call with one message that is `body`; its stream."""
        stream = self.http2.get_next_available_stream_id()
        path = f"/helios.v1.VideoGeneration/{method}"
        fixed = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
        self.http2.send_headers(
            stream, [*fixed, ("content-type", "application/grpc"), ("te", "trailers"), *headers], end_stream=False
        )
        self.http2.send_data(stream, b"\0" + len(body).to_bytes(4, "big") + body, end_stream=True)
        self.flush()
        return stream

    def events(self) -> list[Event] | None:
        """What the server says next; None when it has closed the connection."""
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            return None
        if not data:
            return None
        self._unread += data
        events: list[Event] = []
        for frame in self._frames():
            events += self.http2.receive_data(frame)
            if any(isinstance(event, ConnectionTerminated) for event in events):
                return events  # the library takes nothing after a GOAWAY
        self.flush_quietly()
        return events

    def _frames(self) -> Iterator[bytes]:
        """Whole frames of what has arrived."""
        while len(self._unread) >= FRAME_HEADER:
            size = FRAME_HEADER + int.from_bytes(self._unread[:3], "big")
            if len(self._unread) < size:
                return
            frame, self._unread = self._unread[:size], self._unread[size:]
            yield frame

    def flush_quietly(self) -> None:
        """As flush; a server that has closed the connection is none of the caller's concern."""
        try:
            self.flush()
        except OSError:
            return

    def status(self, stream: int) -> str:
        """The grpc-status of a call. Raises ConnectionError if the connection ends first."""
        while (events := self.events()) is not None:
            for event in events:
                if isinstance(event, ResponseReceived | TrailersReceived) and event.stream_id == stream:
                    values = {str(name): str(value) for name, value in event.headers or ()}
                    if "grpc-status" in values:
                        return values["grpc-status"]
        raise ConnectionError("the server closed the connection")

    def goodbye(self) -> tuple[int, bytes] | None:
        """Error code and text of the server's first GOAWAY; None if it closes the connection without one."""
        while (events := self.events()) is not None:
            for event in events:
                if isinstance(event, ConnectionTerminated):
                    return int(event.error_code or 0), event.additional_data or b""
        return None
