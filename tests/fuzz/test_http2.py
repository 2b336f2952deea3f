"""Bytes that are no HTTP/2, or no longer: the connection may end, the gateway does not, nor anyone else's call."""

import socket

from fuzz.cases import Edit, cases, edited, edits
from fuzz.target import SERVICE, Target
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import given
from hypothesis import strategies as st

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
SILENCE_S = 0.03
"""How long the gateway may think before the next bytes, or the end, come."""


def call_bytes(header_bytes: int = 0) -> bytes:
    """Everything that a client sends for one good call, with a header of some size."""
    client = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    client.initiate_connection()
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", f"/{SERVICE.full_name}/ListModels"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *((f"x-{number}", "v" * 8000) for number in range(header_bytes // 8000)),
    ]
    client.send_headers(1, headers)
    client.send_data(1, b"\0\0\0\0\0", end_stream=True)
    return client.data_to_send()


def say(target: Target, *parts: bytes) -> None:
    """Sends the parts, reading a little in between, and hangs up."""
    with socket.create_connection(("127.0.0.1", target.port), timeout=60) as connection:
        connection.settimeout(SILENCE_S)
        for part in parts:
            try:
                connection.sendall(part)
                if not connection.recv(1 << 16):
                    return
            except (TimeoutError, ConnectionResetError, BrokenPipeError):
                continue


FRAMES = st.lists(
    st.builds(
        lambda kind, flags, stream, payload, lie: (
            (len(payload) + lie).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
        ),
        st.integers(0, 12) | st.integers(0, 255),
        st.integers(0, 255),
        st.sampled_from((0, 1, 2, 3, 2**31 - 1, 2**32 - 1)),
        st.binary(max_size=64),
        st.sampled_from((0, 0, 0, 1, 100, 2**23)),
    ),
    min_size=1,
    max_size=8,
)


@cases(0.03)
@given(noise=st.binary(min_size=1, max_size=400))
def test_noise(target: Target, noise: bytes) -> None:
    say(target, noise)
    target.check_serving()


@cases(0.06)
@given(frames=FRAMES, greeted=st.booleans())
def test_any_frames(target: Target, frames: list[bytes], greeted: bool) -> None:
    say(target, PREFACE + (SETTINGS if greeted else b""), *frames)
    target.check_serving()


@cases(0.05)
@given(changes=edits(), cut=st.floats(0, 1))
def test_a_call_that_is_damaged_or_cut_off(target: Target, changes: list[Edit], cut: float) -> None:
    whole = call_bytes()
    say(target, edited(whole, changes, keep=len(PREFACE)))
    say(target, whole[: int(len(whole) * cut)])
    target.check_serving()


@cases(0.01)
@given(size=st.integers(1, 60))
def test_huge_headers(target: Target, size: int) -> None:
    say(target, call_bytes(size * 8000))
    target.check_serving()
