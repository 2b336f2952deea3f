"""The segments of a video stream, put together again from their parts."""

from dataclasses import dataclass

from helios.v1 import video_generation_pb2 as pb


@dataclass(frozen=True, kw_only=True)
class Segment:
    """The init segment (`info` is None) or a chunk's fragment; in order, they are a fragmented MP4."""

    data: bytes
    info: pb.ChunkInfo | None


class Assembler:
    """Collects parts until a segment is whole; skips the init segment of a resumed stream."""

    def __init__(self, from_chunk: int = 0) -> None:
        self.next_chunk = from_chunk
        self._had_init = False
        self._parts: list[bytes] = []

    def restart(self) -> None:
        """The stream was cut: a segment begun is dropped."""
        self._parts.clear()

    def add(self, part: pb.VideoChunk) -> Segment | None:
        """The segment that `part` completes, if it does."""
        self._parts.append(part.data)
        if not part.last_part:
            return None
        data = b"".join(self._parts)
        self._parts.clear()
        if part.init_segment:
            repeated, self._had_init = self._had_init, True
            return None if repeated else Segment(data=data, info=None)
        self.next_chunk = part.chunk_index + 1
        return Segment(data=data, info=part.info)
