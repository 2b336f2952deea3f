"""What goes between a worker and its decoding process: no pickle, and nothing of open length.

Request: 4 bytes of length, JSON, the file. Answer: the greeting once the limits are set, then a header and, if the
file was refused, a text, else the first frame and the tail as raw pixels.
"""

import json
import struct
from dataclasses import asdict, dataclass

from helios_services.media.errors import MediaError, MediaReason

GREETING = b"helios-media-1\n"
LENGTH = struct.Struct(">I")
HEADER = struct.Struct(">BIIH")
"""Reason (0: decoded, else its place among MediaReason + 1), frames in all, frames of the tail, bytes of text."""
REASONS = tuple(MediaReason)
MAX_TEXT_BYTES = 1000


@dataclass(frozen=True, kw_only=True)
class ClipJob:
    """What to make of a clip. Sizes in pixels, fps of the result; the limits as in MediaConfig."""

    height: int
    width: int
    fps: int
    keep_last: int
    min_frames: int
    max_pixels: int
    max_frames: int
    max_duration_s: float


@dataclass(frozen=True, kw_only=True)
class Request:
    """A file of `size_bytes` to decode: a clip if `clip` is set, else a still. The limits as in MediaConfig."""

    content_type: str
    size_bytes: int
    height: int
    width: int
    max_pixels: int
    cpu_s: int
    memory_bytes: int
    require_filter: bool
    clip: ClipJob | None = None

    def to_bytes(self) -> bytes:
        """The message with its length in front."""
        text = json.dumps(asdict(self)).encode()
        return LENGTH.pack(len(text)) + text

    @classmethod
    def from_json(cls, text: bytes) -> "Request":
        """The inverse, without the length. Trusts its input, which the worker wrote."""
        fields = json.loads(text)
        clip = fields.pop("clip")
        return cls(**fields, clip=None if clip is None else ClipJob(**clip))

    @property
    def frame_bytes(self) -> int:
        """How many bytes a decoded frame has."""
        return self.height * self.width * 3

    @property
    def max_answer_bytes(self) -> int:
        """How many bytes the longest answer has."""
        frames = 1 + (self.clip.keep_last if self.clip else 0)
        return len(GREETING) + HEADER.size + max(MAX_TEXT_BYTES, frames * self.frame_bytes)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A decoded file: frames in all, frames of the tail, and where the pixels begin in the answer."""

    num_frames: int
    tail_frames: int
    offset: int


def refusal_bytes(error: MediaError) -> bytes:
    """The answer for a refused file, without the greeting."""
    text = str(error).encode()[:MAX_TEXT_BYTES]
    return HEADER.pack(REASONS.index(error.reason) + 1, 0, 0, len(text)) + text


def read_answer(answer: bytes | bytearray, request: Request) -> Answer:
    """Checks an answer that may be anything. Raises MediaError if the file was refused, ValueError for nonsense."""
    offset = len(GREETING) + HEADER.size
    if len(answer) < offset:
        raise ValueError(f"answer: {len(answer)} bytes, expected {offset} or more")
    code, num_frames, tail_frames, text_bytes = HEADER.unpack_from(answer, len(GREETING))
    if code:
        if code > len(REASONS) or text_bytes > MAX_TEXT_BYTES or len(answer) != offset + text_bytes:
            raise ValueError(f"refusal: reason {code}, {text_bytes} bytes of text, {len(answer)} bytes")
        text = bytes(answer[offset:]).decode(errors="replace")
        raise MediaError(REASONS[code - 1], "".join(letter if letter.isprintable() else "?" for letter in text))
    if request.clip is None:
        fits = (num_frames, tail_frames) == (1, 0)
    else:
        fits = num_frames >= request.clip.min_frames and tail_frames == min(request.clip.keep_last, num_frames)
    if not fits or text_bytes or len(answer) != offset + (1 + tail_frames) * request.frame_bytes:
        raise ValueError(f"answer: {num_frames} frames, {tail_frames} of them last, in {len(answer)} bytes")
    return Answer(num_frames=num_frames, tail_frames=tail_frames, offset=offset)
