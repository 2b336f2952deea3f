"""Opens a clip with PyAV and holds it against the limits. Runs in the sandbox."""

import io
from fractions import Fraction
from typing import Any

import av
import av.subtitles.codeccontext  # PyAV would import these when it opens a file; the sandbox can open none then
import av.subtitles.stream

from helios_services.media.errors import MediaError, MediaReason, refused
from helios_services.media.wire import ClipJob

DEMUXERS = {"video/webm": "matroska", "video/x-matroska": "matroska", "video/x-msvideo": "avi"}
"""Others are of the family of MP4."""
CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "prores", "mjpeg", "mpeg4", "h263")
DECODERS = ",".join((*CODECS, "libdav1d", "libaom-av1"))
"""What libav may open, its own probing included."""
DOLBY_VISION = ("dvh1", "dvhe", "dva1", "dvav", "dav1")
UNSPECIFIED = 2
MAX_STREAMS = 16
COVER_ART = av.stream.Disposition.attached_pic
ODDEST_PIXEL = 4.0
"""Pixel aspect ratios beyond this, or its inverse, are taken for damage: square pixels."""


def open_clip(data: bytes, content_type: str, job: ClipJob) -> Any:
    """The container, a context manager."""
    options = {
        "codec_whitelist": DECODERS,
        "protocol_whitelist": "",
        "max_streams": str(MAX_STREAMS),
        "max_pixels": str(_padded(job.max_pixels)),
    }
    return av.open(io.BytesIO(data), "r", format=DEMUXERS.get(content_type, "mp4"), options=options)


def video_stream(container: Any, content_type: str, job: ClipJob) -> Any:
    """The one video stream, its decoder set up."""
    if not container.streams:
        raise damaged()
    stream = next((stream for stream in container.streams.video if not stream.disposition & COVER_ART), None)
    if stream is None:
        raise refused(MediaReason.TYPE_NOT_SUPPORTED, "clip", "a file without video", "files with a video stream")
    context = stream.codec_context
    codec = None if context is None else context.codec.canonical_name
    if codec not in CODECS:
        found = f"codec {codec or 'unknown'} in {content_type}"
        raise refused(MediaReason.TYPE_NOT_SUPPORTED, "clip", found, ", ".join(CODECS))
    if context.codec_tag.lower() in DOLBY_VISION and context.color_trc == UNSPECIFIED:
        found = "Dolby Vision without a picture for other screens (profile 5)"
        raise refused(MediaReason.TYPE_NOT_SUPPORTED, "clip", found, "HDR10, HLG, and Dolby Vision made of these")
    if context.width * context.height > job.max_pixels:
        raise too_many_pixels(context.width, context.height, job)
    # no threads: they multiply the memory, and the sandbox has none to give
    context.thread_count = 1
    context.options = {"max_pixels": str(_padded(job.max_pixels))}
    if stream.duration:
        check_duration(stream.duration * Fraction(stream.time_base), job)
    if container.duration:
        check_duration(Fraction(container.duration, av.time_base), job)
    return stream


def pixel_aspect(stream: Any) -> float:
    """Width of a pixel over its height."""
    ratio = float(stream.sample_aspect_ratio or 1)
    return ratio if 1 / ODDEST_PIXEL <= ratio <= ODDEST_PIXEL else 1.0


def _padded(max_pixels: int) -> int:
    """The limit for libav, which counts its buffers' padding too. Frames are held to the limit itself later."""
    return 2 * max_pixels + 2**16


def check_frames(number: int, job: ClipJob) -> None:
    """Raises MediaError for too many."""
    if number > job.max_frames:
        found = f"more than {job.max_frames} frames"
        raise refused(MediaReason.TOO_LONG, "clip", found, f"at most {job.max_frames} frames")


def check_duration(seconds: Fraction, job: ClipJob) -> None:
    """Raises MediaError for too long."""
    if seconds > job.max_duration_s:
        found = f"a duration of {float(seconds):.6g} s"
        raise refused(MediaReason.TOO_LONG, "clip", found, f"at most {job.max_duration_s:g} s")


def too_many_pixels(width: int, height: int, job: ClipJob) -> MediaError:
    """The error."""
    return refused(MediaReason.TOO_LARGE, "clip", f"{width}x{height} pixels", f"at most {job.max_pixels} pixels")


def damaged() -> MediaError:
    """The error."""
    return MediaError(MediaReason.UNREADABLE, "clip: the data is damaged or cut off")
