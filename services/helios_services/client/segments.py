"""Puts the parts of a video stream together again, and builds requests: what both clients share."""

import mimetypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.duration_pb2 import Duration

from helios.v1 import video_generation_pb2 as pb
from helios_services.file_kinds import by_name

PART_BYTES = 1024 * 1024


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


def submission(
    prompt: str,
    *,
    model: str = "",
    priority: str = "normal",
    idempotency_key: str = "",
    labels: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    queue_timeout_s: float | None = None,
    webhook_url: str = "",
    **params: Any,
) -> pb.SubmitJobRequest:
    """A SubmitJobRequest. `params`: further fields of GenerationParams; None leaves a field unset."""
    return pb.SubmitJobRequest(
        timeout=_duration(timeout_s),
        queue_timeout=_duration(queue_timeout_s),
        model=model,
        params=pb.GenerationParams(prompt=prompt, **{name: v for name, v in params.items() if v is not None}),
        priority=pb.Priority.Value(f"PRIORITY_{priority.upper()}"),
        idempotency_key=idempotency_key,
        labels=labels,
        webhook_url=webhook_url,
    )


def listing(*, page_size: int, states: tuple[str, ...], model: str, dead_letters: bool) -> pb.ListJobsRequest:
    """A ListJobsRequest. states: without their prefix, in any case."""
    numbers = [pb.JobState.Value(f"JOB_STATE_{state.upper()}") for state in states]
    return pb.ListJobsRequest(page_size=page_size, states=numbers, model=model, dead_letters=dead_letters)


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1e6))
    return duration


def upload_parts(file: Path, content_type: str = "") -> Iterator[pb.UploadMediaRequest]:
    """The messages that upload a file. content_type: guessed from the file's name if empty."""
    guessed = content_type or by_name(file.name) or mimetypes.guess_type(file.name)[0] or ""
    metadata = pb.MediaMetadata(content_type=guessed, size_bytes=file.stat().st_size)
    yield pb.UploadMediaRequest(metadata=metadata)
    with file.open("rb") as data:
        while piece := data.read(PART_BYTES):
            yield pb.UploadMediaRequest(data=piece)
