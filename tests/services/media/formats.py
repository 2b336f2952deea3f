"""The kinds of files that are tried, and the page that says so: `python -m services.media.formats` writes it."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange
from PIL import Image

from services.media.files import Pixels, gradient, still

PAGE = Path(__file__).parents[3] / "docs" / "formats.md"
BEGIN, END = "<!-- begin: tests/services/media/formats.py -->", "<!-- end -->"


def moving(count: int, height: int = 64, width: int = 96) -> list[Pixels]:
    """A picture that wanders to the right: each frame is another."""
    return [np.roll(gradient(height, width), 2 * k, axis=1) // 2 + 60 for k in range(count)]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip to make, and what is expected. refused: words of the refusal; psnr: dB that the frames must reach."""

    name: str
    container: str
    suffix: str
    encoder: str
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)
    height: int = 64
    width: int = 96
    rotation: int = 0
    aspect: Fraction | None = None
    sounds: int = 0
    interlaced: bool = False
    refused: str = ""
    psnr: float = 26.0
    note: str = ""

    def make(self) -> bytes:
        """40 frames of `moving`."""
        return encode(self, moving(40, self.height, self.width))


def encode(clip: Clip, frames: Sequence[Pixels]) -> bytes:
    """The file."""
    file = io.BytesIO()
    with av.open(file, "w", format=clip.container, container_options=clip.container_options) as target:
        stream = target.add_stream(clip.encoder, rate=24)
        height, width = frames[0].shape[:2]
        stream.height, stream.width, stream.pix_fmt = height, width, clip.pix_fmt
        stream.codec_context.options = clip.options
        stream.codec_context.thread_count = 1
        if clip.aspect is not None:
            stream.sample_aspect_ratio = clip.aspect
        if clip.rotation:
            stream.set_display_rotation(clip.rotation)
        voices = [target.add_stream("aac", rate=48000) for _ in range(clip.sounds)]
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            full = clip.pix_fmt.startswith("yuvj")
            frame = frame.reformat(format=clip.pix_fmt, dst_color_range=ColorRange.JPEG if full else ColorRange.MPEG)
            frame.pts = number
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
        for voice in voices:
            quiet = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
            quiet.sample_rate, quiet.pts = 48000, 0
            target.mux(voice.encode(quiet))
            target.mux(voice.encode(None))
    return file.getvalue()


X264 = {"preset": "veryfast", "crf": "10"}
X265 = {"preset": "veryfast", "crf": "10", "x265-params": "log-level=none"}
VPX = {"crf": "10", "b": "0", "deadline": "realtime", "cpu-used": "8"}
MP4: dict[str, Any] = {"container": "mp4", "suffix": "mp4"}
MOV: dict[str, Any] = {"container": "mov", "suffix": "mov"}
H264: dict[str, Any] = {"encoder": "libx264", "options": X264}
HEVC: dict[str, Any] = {"encoder": "libx265", "options": X265}
CLIPS = (
    Clip(name="H.264", **MP4, **H264),
    Clip(name="H.264, 10 bit", **MP4, **H264, pix_fmt="yuv420p10le"),
    Clip(name="H.264, 4:2:2, 10 bit", **MP4, **H264, pix_fmt="yuv422p10le"),
    Clip(name="H.264, 4:4:4", **MP4, **H264, pix_fmt="yuv444p"),
    Clip(name="H.264, full range", **MP4, **H264, pix_fmt="yuvj420p"),
    Clip(
        name="H.264, fragmented",
        **MP4,
        **H264,
        container_options={"movflags": "frag_keyframe+empty_moov+default_base_moof"},
    ),
    Clip(name="H.264, turned by 90 degrees", **MP4, **H264, rotation=90, note="shown upright"),
    Clip(name="H.264, pixels that are not square", **MP4, **H264, aspect=Fraction(4, 3), note="shown in their shape"),
    Clip(name="H.264, odd size", **MP4, **H264, pix_fmt="yuv444p", height=63, width=95),
    Clip(
        name="H.264, interlaced",
        **MP4,
        encoder="libx264",
        options=X264 | {"flags": "+ildct+ilme", "x264-params": "tff=1"},
        interlaced=True,
        note="one field of each frame",
    ),
    Clip(name="H.264, three sound tracks", **MP4, **H264, sounds=3, note="sound is passed over"),
    Clip(name="HEVC", **MP4, **HEVC),
    Clip(name="HEVC, 10 bit", **MP4, **HEVC, pix_fmt="yuv420p10le"),
    Clip(name="HEVC, 4:4:4, 12 bit", **MP4, **HEVC, pix_fmt="yuv444p12le"),
    Clip(name="VP9", **MP4, encoder="libvpx-vp9", options=VPX),
    Clip(name="AV1", **MP4, encoder="libsvtav1", options={"crf": "10", "preset": "10"}),
    Clip(name="MPEG-4 part 2", **MP4, encoder="mpeg4", options={"b": "8M"}),
    Clip(name="H.264", **MOV, **H264, note="iPhone, cameras"),
    Clip(name="HEVC", **MOV, **HEVC, note="iPhone"),
    Clip(name="ProRes 422", **MOV, encoder="prores_ks", pix_fmt="yuv422p10le"),
    Clip(name="ProRes 4444", **MOV, encoder="prores_ks", options={"profile": "4"}, pix_fmt="yuva444p10le"),
    Clip(name="Motion JPEG, 4:2:2", **MOV, encoder="mjpeg", pix_fmt="yuvj422p", options={"b": "20M"}),
    Clip(name="H.264", container="ipod", suffix="m4v", **H264),
    Clip(
        name="H.263",
        container="3gp",
        suffix="3gp",
        encoder="h263",
        options={"b": "8M"},
        height=96,
        width=128,
        aspect=Fraction(12, 11),
        note="its pixels are not square",
    ),
    Clip(name="MPEG-4 part 2", container="3gp", suffix="3gp", encoder="mpeg4", options={"b": "8M"}),
    Clip(name="H.264", container="3g2", suffix="3g2", **H264),
    Clip(name="VP8", container="webm", suffix="webm", encoder="libvpx", options=VPX | {"b": "8M"}),
    Clip(name="VP9", container="webm", suffix="webm", encoder="libvpx-vp9", options=VPX),
    Clip(name="AV1", container="webm", suffix="webm", encoder="libsvtav1", options={"crf": "10", "preset": "10"}),
    Clip(
        name="VP9, recorded by a browser",
        container="webm",
        suffix="webm",
        encoder="libvpx-vp9",
        options=VPX,
        container_options={"live": "1"},
        note="no length in the file",
    ),
    Clip(name="H.264", container="matroska", suffix="mkv", **H264),
    Clip(name="HEVC, 10 bit", container="matroska", suffix="mkv", **HEVC, pix_fmt="yuv420p10le"),
    Clip(name="Motion JPEG", container="avi", suffix="avi", encoder="mjpeg", pix_fmt="yuvj420p", options={"b": "20M"}),
    Clip(name="MPEG-4 part 2", container="avi", suffix="avi", encoder="mpeg4", options={"b": "8M"}),
    Clip(name="H.264", container="avi", suffix="avi", encoder="libx264", options=X264 | {"bf": "0"}),
    Clip(name="MPEG-2", container="matroska", suffix="mkv", encoder="mpeg2video", refused="codec mpeg2video"),
    Clip(name="FFV1", container="matroska", suffix="mkv", encoder="ffv1", refused="codec ffv1"),
    Clip(name="DV", container="avi", suffix="avi", encoder="dvvideo", height=576, width=720, refused="codec dvvideo"),
)


@dataclass(frozen=True, kw_only=True)
class Still:
    """A picture to make, and what is expected."""

    name: str
    suffix: str
    make: Callable[[], bytes]
    refused: str = ""
    psnr: float = 30.0
    note: str = ""


def animated(kind: str, **options: Any) -> bytes:
    """`gradient`, and then other pictures."""
    others = [Image.fromarray(255 - gradient())] * 2
    return still(gradient(), kind, save_all=True, append_images=others, duration=50, **options)


STILLS = (
    Still(name="PNG", suffix="png", make=lambda: still(gradient()), psnr=99),
    Still(name="PNG, animated", suffix="png", make=lambda: animated("PNG"), psnr=99, note="the first picture"),
    Still(name="JPEG", suffix="jpg", make=lambda: still(gradient(), "JPEG", quality=95)),
    Still(
        name="JPEG, CMYK",
        suffix="jpg",
        make=lambda: still(Image.fromarray(gradient()).convert("CMYK"), "JPEG", quality=95),
        psnr=25,
    ),
    Still(name="JPEG of two views (MPO)", suffix="jpg", make=lambda: still(gradient(), "MPO", quality=95)),
    Still(name="WebP", suffix="webp", make=lambda: still(gradient(), "WEBP", quality=95)),
    Still(
        name="WebP, animated",
        suffix="webp",
        make=lambda: animated("WEBP", lossless=True),
        psnr=99,
        note="the first picture",
    ),
    Still(name="AVIF", suffix="avif", make=lambda: still(gradient(), "AVIF", quality=95)),
    Still(name="AVIF, animated", suffix="avif", make=lambda: animated("AVIF", quality=95), note="the first picture"),
    Still(name="GIF", suffix="gif", make=lambda: animated("GIF"), psnr=20, note="the first picture"),
    Still(
        name="HEIC",
        suffix="heic",
        make=lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
        refused="image/heif",
        note="convert it, or let the camera write JPEG",
    ),
    Still(name="TIFF", suffix="tiff", make=lambda: still(gradient(), "TIFF"), refused="image/tiff"),
    Still(name="BMP", suffix="bmp", make=lambda: still(gradient(), "BMP"), refused="image/bmp"),
)


def table() -> str:
    """The page's tables: what the tests try."""
    lines = ["| file | what is in it | |", "|---|---|---|"]
    for case in (*CLIPS, *STILLS):
        result = "refused, by name" if case.refused else "read"
        lines.append(f"| `.{case.suffix}` | {case.name} | {result}{case.note and f': {case.note}'} |")
    return "\n".join(lines)


def main() -> None:
    """Writes the table into the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
