"""Encodes each chunk as one closed GOP in its own fMP4 fragment.

Encoding is stateless: the chunk's index alone places it in time, so any replica can encode any chunk, and the init
segment is the same for all chunks of a video. Init segment + consecutive fragments play, from any chunk on.
"""

import io
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from helios_services.media.boxes import boxes

TICKS_PER_FRAME = 512
"""Units of the track's time base per frame; what MP4 muxers use."""
FRAGMENT_FLAGS = "frag_keyframe+empty_moov+default_base_moof+frag_discont+skip_trailer"


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """H.264 settings, the same for every chunk of a video. crf: 0 (lossless) to 51; threads: encoder threads."""

    crf: int = 18
    preset: str = "veryfast"
    threads: int = 2


@dataclass(frozen=True, kw_only=True)
class EncodedChunk:
    """A chunk's fragment (moof + mdat) and the video's init segment (ftyp + moov)."""

    init_segment: bytes
    fragment: bytes
    num_frames: int


def encode_chunk(frames: NDArray[np.uint8], *, index: int, fps: int, settings: EncoderSettings) -> EncodedChunk:
    """frames: uint8, RGB (T, H, W, 3) or planes of YUV 4:2:0 (T, 3H/2, W) in BT.709's limited range, H and W even.

    index: which chunk of the video; all chunks have T frames. The same arguments give the same bytes.
    """
    planar = frames.ndim == 3
    count, height, width = frames.shape[:3]
    height = height * 2 // 3 if planar else height
    buffer, time_base = io.BytesIO(), Fraction(1, fps * TICKS_PER_FRAME)
    # number the fragment, and keep the offset of its timestamps
    options = {"movflags": FRAGMENT_FLAGS, "fragment_index": str(index + 1), "avoid_negative_ts": "disabled"}
    with av.open(buffer, "w", format="mp4", container_options=options) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = time_base
        context = stream.codec_context
        context.gop_size, context.max_b_frames, context.thread_count = count, 0, settings.threads
        context.color_primaries = context.color_trc = context.colorspace = 1  # BT.709
        context.color_range = 1  # limited
        context.options = {"crf": str(settings.crf), "preset": settings.preset, "x264-params": "scenecut=0:open-gop=0"}
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="yuv420p" if planar else "rgb24")
            if not planar:
                frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts = (index * count + number) * TICKS_PER_FRAME
            frame.time_base = time_base  # the stream's own changes when the header is written
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    parts = list(boxes(buffer.getvalue()))
    return EncodedChunk(
        init_segment=b"".join(box for kind, box in parts if kind in ("ftyp", "moov")),
        fragment=b"".join(box for kind, box in parts if kind in ("moof", "mdat")),
        num_frames=count,
    )
