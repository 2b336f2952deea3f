"""Decodes a still picture with Pillow. Runs in the sandbox."""

import io
import struct
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from helios_services.media.cover import cover
from helios_services.media.errors import MediaReason, refused

# All that Pillow would import later is imported now: the sandbox can open no file then. TIFF is how EXIF is written,
# MPO how phones put a second view into a JPEG.
PLUGINS = (JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)
Image.preinit()
FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
ORIENTATION_TAG = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_still(data: bytes, content_type: str, *, height: int, width: int, max_pixels: int) -> NDArray[np.uint8]:
    """The first picture of a PNG, JPEG or WebP, upright, on black where it is transparent: (height, width, 3).

    Raises MediaError for more than max_pixels, and whatever Pillow raises for broken data.
    """
    # Pillow refuses more than twice this before it allocates anything; the check below is exact
    Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    allowed = f"at most {max_pixels} pixels"
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=[FORMATS[content_type]])
    except Image.DecompressionBombError:
        raise refused(MediaReason.TOO_LARGE, "image", f"more than {max_pixels} pixels", allowed) from None
    if image.width * image.height > max_pixels:
        raise refused(MediaReason.TOO_LARGE, "image", f"{image.width}x{image.height} pixels", allowed)
    image.load()
    turn = TURNS.get(_orientation(image))
    picture = _rgb(image)
    return cover(picture.transpose(turn) if turn is not None else picture, height, width)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, or none that can be read: the picture is still good."""
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB on black. Of 16-bit samples the high byte is kept, as Pillow does for colour."""
    if image.mode.startswith("I"):  # convert() would clip 16-bit gray to 255
        samples = np.asarray(image)
        gray = (samples >> 8).astype(np.uint8)
        if isinstance(clear := image.info.get("transparency"), int):
            gray[samples == clear] = 0
        return Image.fromarray(gray).convert("RGB")
    clear = image.info.get("transparency")
    if isinstance(clear, tuple) and max(clear) > 255:
        del image.info["transparency"]  # a 16-bit colour key means nothing among 8-bit samples
    if not image.has_transparency_data:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    flat = Image.new("RGB", layered.size)
    flat.paste(layered, mask=layered.getchannel("A"))
    return flat
