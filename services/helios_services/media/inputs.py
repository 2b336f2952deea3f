"""Pictures and clips that users send, as frames of the request's size.

A file is decoded in a process of its own that can neither open files nor outlive its limits, so a hostile one costs
an error. Calls block for as long as decoding takes; at most MediaConfig.decode_timeout_s.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from helios_engine.errors import InvalidField
from helios_engine.request import FRAMES_PER_CHUNK
from helios_services.config import MediaConfig
from helios_services.media.decoding import decode
from helios_services.media.errors import MediaReason, refused
from helios_services.media.sniff import check_type
from helios_services.media.wire import ClipJob, Request


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """first: (H, W, 3), the clip's first frame. tail: (N, H, W, 3), its last frames. All uint8 RGB.

    num_frames: of the whole clip at the frame rate asked for. N is keep_last, or num_frames if that is less; then
    the tail begins with the first frame.
    """

    first: NDArray[np.uint8]
    tail: NDArray[np.uint8]
    num_frames: int


def decode_image(data: bytes, content_type: str, *, height: int, width: int, limits: MediaConfig) -> NDArray[np.uint8]:
    """Decodes a still of file_kinds.py (the first picture of an animated one) to (height, width, 3) uint8 sRGB.

    EXIF orientation and colour profiles are applied, transparency is put on black, of 16-bit samples the high byte is
    kept, and the picture is made to cover the size (see cover.py). Raises MediaError for the file, InvalidField for
    the size, SandboxError or OSError if no decoding process can be started.
    """
    _check_positive(height=height, width=width)
    _check_size("image", data, limits)
    kind = check_type("image", data, content_type)
    request = _request(data, kind, height, width, limits, None)
    pixels, _ = decode(data, request, timeout_s=limits.decode_timeout_s)
    picture: NDArray[np.uint8] = pixels[0]
    return picture


def decode_clip(
    data: bytes, content_type: str, *, height: int, width: int, fps: int, keep_last: int, limits: MediaConfig
) -> Clip:
    """Decodes a clip of file_kinds.py, of the codecs in clip_file.py: its first frame and the last `keep_last`.

    Frames are picked at `fps` as Resampler says: the latest one shown at each time, none blended. Rotation, mirroring
    and the pixels' aspect ratio are applied, colours become those of BT.709 (see colour.py), of interlaced frames one
    field is taken, and each frame is made to cover the size (see cover.py). A clip needs
    one chunk of frames at that rate. Raises as decode_image does.
    """
    _check_positive(height=height, width=width, fps=fps, keep_last=keep_last)
    _check_size("clip", data, limits)
    kind = check_type("clip", data, content_type)
    job = ClipJob(
        height=height,
        width=width,
        fps=fps,
        keep_last=keep_last,
        min_frames=FRAMES_PER_CHUNK,
        max_pixels=limits.max_pixels,
        max_frames=limits.max_frames,
        max_duration_s=limits.max_duration_s,
    )
    pixels, answer = decode(data, _request(data, kind, height, width, limits, job), timeout_s=limits.decode_timeout_s)
    return Clip(first=pixels[0], tail=pixels[1:], num_frames=answer.num_frames)


def _request(
    data: bytes, content_type: str, height: int, width: int, limits: MediaConfig, clip: ClipJob | None
) -> Request:
    return Request(
        content_type=content_type,
        size_bytes=len(data),
        height=height,
        width=width,
        max_pixels=limits.max_pixels,
        cpu_s=limits.cpu_s,
        memory_bytes=limits.memory_bytes,
        require_filter=limits.require_seccomp,
        clip=clip,
    )


def _check_positive(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise InvalidField(name, value, "1 or more")


def _check_size(field: str, data: bytes, limits: MediaConfig) -> None:
    if len(data) > limits.max_bytes:
        raise refused(MediaReason.TOO_LARGE, field, f"{len(data)} bytes", f"at most {limits.max_bytes} bytes")
