"""Decodes a still picture with Pillow. Runs in the sandbox."""

import io
import struct
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from helios_services.media.cover import cover
from helios_services.media.errors import MediaReason, refused
from helios_services.media.still_colour import by_profile, by_tags

# All that Pillow would import later is imported now: the sandbox can open no file then. TIFF is how EXIF is written,
# MPO how phones put a second view into a JPEG.
PLUGINS = (
    AvifImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
Image.preinit()
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # the sandbox has none to give
FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/avif": "AVIF", "image/gif": "GIF"}
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
    """The first picture of a file, upright, in sRGB, on black where it is transparent: (height, width, 3).

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
    profile = image.info.get("icc_profile")
    recoloured = None if profile else by_tags(image, data)
    picture = _rgb(image, profile)
    pixels = cover(picture.transpose(turn) if turn is not None else picture, height, width)
    return pixels if recoloured is None else recoloured(pixels)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, or none that can be read: the picture is still good."""
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return 1


def _rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """8-bit RGB on black, of sRGB if there is a profile. Of 16-bit samples the high byte is kept, as Pillow does for
    colour."""
    if image.mode.startswith("I"):  # convert() would clip 16-bit gray to 255
        samples = np.asarray(image)
        gray = (samples >> 8).astype(np.uint8)
        if isinstance(clear := image.info.get("transparency"), int):
            gray[samples == clear] = 0
        return _opaque(Image.fromarray(gray), profile)
    clear = image.info.get("transparency")
    if isinstance(clear, tuple) and max(clear) > 255:
        del image.info["transparency"]  # a 16-bit colour key means nothing among 8-bit samples
    if not image.has_transparency_data:
        return _opaque(image, profile)
    layered = image.convert("RGBA")
    flat = Image.new("RGB", layered.size)
    flat.paste(_opaque(layered.convert("RGB"), profile), mask=layered.getchannel("A"))
    return flat


def _opaque(picture: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        if picture.mode not in ("RGB", "L", "CMYK"):
            picture = picture.convert("RGB")
        picture = by_profile(picture, profile)
    return picture.convert("RGB")
