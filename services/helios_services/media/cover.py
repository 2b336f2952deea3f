"""The resize policy "cover"."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

NEEDED_LATER = (ImageFile,)
"""Pillow imports it when pixels leave a picture; the sandbox can open no file then."""


def cover(picture: Image.Image, height: int, width: int, *, pixel_aspect: float = 1.0) -> NDArray[np.uint8]:
    """Scales an RGB picture until it covers (height, width), and cuts off evenly what sticks out.

    Lanczos, antialiased when it shrinks. pixel_aspect: width of the source's pixels over their height. A picture
    that has the size already stays as it is, bit for bit. Returns (height, width, 3).
    """
    if picture.size != (width, height) or pixel_aspect != 1.0:
        scale = max(width / (picture.width * pixel_aspect), height / picture.height)
        # the part of the source that the target shows, in source pixels
        kept_width = min(width / scale / pixel_aspect, picture.width)
        kept_height = min(height / scale, picture.height)
        left, top = (picture.width - kept_width) / 2, (picture.height - kept_height) / 2
        box = (left, top, left + kept_width, top + kept_height)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS, box=box)
    return np.ascontiguousarray(picture)
