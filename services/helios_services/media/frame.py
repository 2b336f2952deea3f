"""A decoded frame as a picture of the request's size: upright, of one field, of a BT.709 screen's colours."""

import math
from typing import Any

import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import Interpolation
from numpy.typing import NDArray
from PIL import Image

from helios_services.media.colour import converted, needs_conversion
from helios_services.media.cover import cover
from helios_services.media.wire import ClipJob

Pixels = NDArray[np.uint8]
_WITH_ALPHA = ("yuva", "gbrap", "rgba", "bgra", "argb", "abgr", "ya")


def picture_of(frame: Any, job: ClipJob, pixel_aspect: float) -> Pixels:
    """(H, W, 3)."""
    turned, across, down = _matrix(frame)
    if needs_conversion(frame.color_primaries, frame.color_trc):
        pixels = _converted(frame, job, pixel_aspect, turned)
    elif frame.format.name.startswith(_WITH_ALPHA):  # on black, as stills are
        layered = frame.to_ndarray(format="rgba", threads=1)
        pixels = (layered[..., :3] * (layered[..., 3:] / np.float32(255)) + np.float32(0.5)).astype(np.uint8)
    else:
        pixels = frame.to_ndarray(format="rgb24", threads=1)
    if frame.interlaced_frame:  # two moments in one frame: every other line is one of them
        pixels, pixel_aspect = pixels[::2], pixel_aspect / 2
    if turned:
        pixels, pixel_aspect = pixels.swapaxes(0, 1), 1 / pixel_aspect
    pixels = np.ascontiguousarray(pixels[::down, ::across])
    return cover(Image.fromarray(pixels), job.height, job.width, pixel_aspect=pixel_aspect)


def _matrix(frame: Any) -> tuple[bool, int, int]:
    """Whether rows and columns change places, and then the steps, 1 or -1, across and down."""
    matrix = frame.side_data.get(SideData.DISPLAYMATRIX)
    if matrix is None:
        return False, 1, 1
    (a, b), (c, d) = np.frombuffer(bytes(matrix), np.int32)[:6].reshape(2, 3)[:, :2].tolist()
    # x' = a x + c y, y' = b x + d y; only quarter turns and mirrors are taken from it
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    across, down = (c, b) if turned else (a, d)
    return turned, -1 if across < 0 else 1, -1 if down < 0 else 1


def _converted(frame: Any, job: ClipJob, pixel_aspect: float, turned: bool) -> Pixels:
    """Shrunk first, as far as the request allows: the conversion takes time and memory."""
    width, height = frame.width, frame.height
    if not frame.interlaced_frame:
        across, down = (job.height, job.width) if turned else (job.width, job.height)
        scale = min(1.0, max(across / (width * pixel_aspect), down / height, across / width))
        width, height = math.ceil(width * scale), math.ceil(height * scale)
    samples = frame.reformat(width, height, format="rgb48le", interpolation=Interpolation.LANCZOS, threads=1)
    return converted(samples.to_ndarray(), frame.color_primaries, frame.color_trc)
