"""Files as users might send them, made with Pillow and PyAV."""

import io
import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from helios_services.config import MediaConfig

LIMITS = MediaConfig()
HEIGHT, WIDTH = 64, 96
Pixels = NDArray[np.uint8]
ENCODERS = {
    "h264": ("libx264", "mp4", {"preset": "veryfast", "crf": "12"}),
    "hevc": ("libx265", "mp4", {"preset": "veryfast", "crf": "12", "x265-params": "log-level=none"}),
    "vp9-mp4": ("libvpx-vp9", "mp4", {"crf": "15", "b": "0", "deadline": "realtime", "cpu-used": "8"}),
    "vp8": ("libvpx", "webm", {"crf": "6", "b": "4M", "deadline": "realtime", "cpu-used": "8"}),
    "vp9": ("libvpx-vp9", "webm", {"crf": "15", "b": "0", "deadline": "realtime", "cpu-used": "8"}),
    "av1": ("libsvtav1", "webm", {"crf": "10", "preset": "10"}),
    "av1-mp4": ("libsvtav1", "mp4", {"crf": "10", "preset": "10"}),
    "mpeg4": ("mpeg4", "mp4", {}),
}


def gradient(height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    """Smooth, and different in every corner and channel."""
    y, x = np.mgrid[0:height, 0:width]
    planes = (x * 200 // width + 20, y * 200 // height + 20, (x + y) * 200 // (height + width) + 20)
    return np.stack(planes, axis=-1).astype(np.uint8)


def noise(height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    """Any resampling would show."""
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)


def still(image: Image.Image | Pixels, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, *, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG by hand. rows: with their filter bytes; extra: chunks between header and data."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def steps(count: int, height: int = HEIGHT, width: int = WIDTH) -> list[Pixels]:
    """Plain frames; frame k has the gray level 20 + 3 k (mod 200)."""
    return [np.full((height, width, 3), 20 + 3 * k % 200, dtype=np.uint8) for k in range(count)]


def level(frame: Pixels) -> int:
    """Which of `steps` a decoded frame is."""
    return round((float(frame.mean()) - 20) / 3)


def clip(
    frames: Sequence[Pixels],
    codec: str = "h264",
    *,
    times: Sequence[Fraction] | None = None,
    rotation: int = 0,
    aspect: Fraction | None = None,
    pix_fmt: str = "yuv420p",
    sound: bool = False,
    options: dict[str, str] | None = None,
) -> bytes:
    """A clip; `times` in seconds (24 frames/s where left out), options of the container."""
    encoder, container, settings = ENCODERS[codec]
    file = io.BytesIO()
    with av.open(file, "w", format=container, container_options=options or {}) as target:
        stream = target.add_stream(encoder, rate=24)
        stream.height, stream.width, stream.pix_fmt = frames[0].shape[0], frames[0].shape[1], pix_fmt
        stream.codec_context.options = settings
        stream.codec_context.thread_count = 1
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if aspect is not None:
            stream.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        voice = target.add_stream("aac" if container == "mp4" else "libopus", rate=48000) if sound else None
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
            if times is not None:
                frame.pts, frame.time_base = round(times[number] * 1000), Fraction(1, 1000)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
        if voice is not None:
            samples = np.zeros((2, 1024), np.float32)
            quiet = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
            quiet.sample_rate, quiet.pts = 48000, 0
            target.mux(voice.encode(quiet))
            target.mux(voice.encode(None))
    return file.getvalue()


def psnr(a: Pixels, b: Pixels) -> float:
    """In dB; 99 for equal pictures."""
    error = float(np.mean((a.astype(float) - b) ** 2))
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))
