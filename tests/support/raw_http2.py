"""An HTTP/2 client that may misbehave: a socket, and the h2 library's state machine where rules are to be kept."""

import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, Event, ResponseReceived, TrailersReceived
from hpack import Decoder

TIMEOUT_S = 60.0
FRAME_HEADER = 9
HEADERS, SETTINGS, ACK, END_HEADERS = 1, 4, 1, 4


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
        stream = self.begin(method, *headers)
        self.http2.send_data(stream, b"\0" + len(body).to_bytes(4, "big") + body, end_stream=True)
        self.flush()
        return stream

    def begin(self, method: str, *headers: tuple[str, str]) -> int:
        """Queues the headers of a call and no more; its stream. method: of the API, or a whole path."""
        stream = self.http2.get_next_available_stream_id()
        path = method if method.startswith("/") else f"/helios.v1.VideoGeneration/{method}"
        fixed = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
        self.http2.send_headers(
            stream, [*fixed, ("content-type", "application/grpc"), ("te", "trailers"), *headers], end_stream=False
        )
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

    def statuses(self, streams: set[int]) -> dict[int, str]:
        """The grpc-status of each of these calls. Raises ConnectionError if the connection ends first."""
        found: dict[int, str] = {}
        while streams - found.keys():
            events = self.events()
            if events is None:
                raise ConnectionError("the server closed the connection")
            for event in events:
                if isinstance(event, ResponseReceived | TrailersReceived):
                    values = {str(name): str(value) for name, value in event.headers or ()}
                    if "grpc-status" in values:
                        found[int(event.stream_id or 0)] = values["grpc-status"]
        return found

    def goodbye(self) -> tuple[int, bytes] | None:
        """Error code and text of the server's first GOAWAY; None if it closes the connection without one."""
        while (events := self.events()) is not None:
            for event in events:
                if isinstance(event, ConnectionTerminated):
                    return int(event.error_code or 0), event.additional_data or b""
        return None


class HeadersOnly:
    """A connection whose calls send their headers and no more: thousands of them, with little work for the client."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS, 0, 0, b""))
        self._unread, self._decoder, self._begun = b"", Decoder(), 0
        kind, *_ = next(self._frames())
        assert kind == SETTINGS
        self._socket.sendall(_frame(SETTINGS, ACK, 0, b""))  # without it the server ends the connection after a while

    def close(self) -> None:
        self._socket.close()

    def begin(self, methods: Iterable[str], *headers: tuple[str, str | bytes]) -> None:
        """Begins a call of each of these methods of the API."""
        frames = []
        for method in methods:
            fixed = [(":method", "POST"), (":scheme", "http"), (":path", f"/helios.v1.VideoGeneration/{method}")]
            rest = [(":authority", "localhost"), ("content-type", "application/grpc"), ("te", "trailers"), *headers]
            block = b"".join(map(_literal, [*fixed, *rest]))
            frames.append(_frame(HEADERS, END_HEADERS, 2 * self._begun + 1, block))
            self._begun += 1
        self._socket.sendall(b"".join(frames))

    def answers(self) -> Counter[str]:
        """Waits until every call has its grpc-status. Raises ConnectionError if the connection ends first."""
        codes: Counter[str] = Counter()
        frames = self._frames()
        while codes.total() < self._begun:
            kind, payload = next(frames)
            if kind == HEADERS:
                values = {str(name): str(value) for name, value in self._decoder.decode(payload)}
                codes.update([values["grpc-status"]] if "grpc-status" in values else [])
        return codes

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        """Kind and payload of what the server sends."""
        while True:
            while len(self._unread) >= FRAME_HEADER:
                size = FRAME_HEADER + int.from_bytes(self._unread[:3], "big")
                if len(self._unread) < size:
                    break
                frame, self._unread = self._unread[:size], self._unread[size:]
                yield frame[3], frame[FRAME_HEADER:]
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._unread += data


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _literal(header: tuple[str, str | bytes]) -> bytes:
    """HPACK: a literal without indexing and without Huffman coding."""
    name, value = (part.encode() if isinstance(part, str) else part for part in header)
    return b"\0" + _length(len(name)) + name + _length(len(value)) + value


def _length(count: int) -> bytes:
    if count < 127:
        return bytes([count])
    count, sizes = count - 127, [127]
    while count >= 128:
        sizes.append(count % 128 + 128)
        count //= 128
    return bytes([*sizes, count])
