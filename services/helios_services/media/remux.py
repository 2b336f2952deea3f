"""Turns an fMP4 stream into an ordinary MP4 file, without re-encoding."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import av


class _Stream(io.RawIOBase):
    """A readable file over an iterator of bytes; holds one piece at a time."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        taken = self._rest[: len(buffer)]
        buffer[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)


def remux(pieces: Iterable[bytes], target: Path) -> int:
    """Writes init segment and fragments, in order, as one MP4 with its index in front. Returns its size in bytes."""
    source = io.BufferedReader(_Stream(iter(pieces)))
    with (
        av.open(source, "r", format="mp4") as fragments,
        av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as file,
    ):
        incoming = fragments.streams.video[0]
        outgoing = file.add_stream_from_template(incoming)
        for packet in fragments.demux(incoming):
            if packet.dts is not None:
                packet.stream = outgoing
                file.mux(packet)
    return target.stat().st_size
