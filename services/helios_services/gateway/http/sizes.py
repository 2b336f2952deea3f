"""`seconds` and `size`, as OpenAI's dialect says them, to frames and to a size that the model takes."""

import math
import re

from helios_engine.errors import InvalidField
from helios_engine.variants import VARIANTS
from helios_services.config import ModelConfig

SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")


def frames(seconds: object, fps: int, model: ModelConfig) -> int:
    """The nearest number of frames. Raises InvalidField."""
    most = model.max_frames / fps
    allowed = f"a number of seconds, more than 0 and at most {most:g} at {fps} frames per second"
    try:
        if isinstance(seconds, bool) or not isinstance(seconds, str | int | float):
            raise ValueError
        value = float(seconds)
    except (ValueError, OverflowError):
        raise InvalidField("seconds", seconds, allowed) from None
    if not 0 < value <= most:  # also what is no number
        raise InvalidField("seconds", seconds, allowed)
    return max(1, round(value * fps))


def nearest(size: object, model: ModelConfig) -> tuple[int, int]:
    """Width and height that the model takes, nearest to those asked for. Raises InvalidField."""
    found = SIZE.fullmatch(size) if isinstance(size, str) else None
    if found is None:
        raise InvalidField("size", size, "WIDTHxHEIGHT in pixels, for example 640x384")
    multiple = VARIANTS[model.variant].size_multiple
    width, height = int(found[1]), int(found[2])
    shrink = min(1.0, math.sqrt(model.max_pixels / (width * height)))

    def fitted(pixels: float) -> int:
        return max(multiple, round(pixels / multiple) * multiple)

    width, height = fitted(width * shrink), fitted(height * shrink)
    while width * height > model.max_pixels and max(width, height) > multiple:  # rounded up beyond it
        if width >= height:
            width -= multiple
        else:
            height -= multiple
    return width, height
