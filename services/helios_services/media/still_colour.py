"""Colours of stills: from what the file says of them to sRGB. Runs in the sandbox."""

import io
import struct
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from helios_services.media.colour import ADOBE, BT2020, P3, Linear, Primaries, to_bt709, to_bytes
from helios_services.media.errors import MediaReason, refused

SRGB = ImageCms.createProfile("sRGB")
_SPACES = {"RGB": "RGB ", "CMYK": "CMYK", "L": "GRAY"}
_EXIF_FOLDER, _INTEROP_FOLDER, _COLOUR_SPACE, _INTEROP_INDEX = 0x8769, 0xA005, 0xA001, 1
_ADOBE_GAMMA = 563 / 256
_NCLX = b"colrnclx"
_CODE_PRIMARIES, _CODE_HDR = {9: BT2020, 12: P3}, {16: "PQ", 18: "HLG"}
"""Code points of ITU-T H.273: colour primaries that are converted, and transfer functions of HDR."""
Pixels = NDArray[np.uint8]


def by_profile(picture: Image.Image, profile: bytes) -> Image.Image:
    """RGB, gray or CMYK -> RGB of sRGB, by an ICC profile; one that is broken or of another kind says nothing."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if opened.profile.xcolor_space != _SPACES.get(picture.mode) or "sRGB" in (
            opened.profile.profile_description or ""
        ):
            return picture
        converted = ImageCms.profileToProfile(
            picture,
            opened,
            SRGB,
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return picture
    return picture if converted is None else converted


def by_tags(image: Image.Image, data: bytes) -> Callable[[Pixels], Pixels] | None:
    """What turns RGB into sRGB where there is no profile but a tag: Adobe RGB in EXIF, primaries in AVIF.

    Raises MediaError for high dynamic range, which would be washed out.
    """
    if image.format == "AVIF" and (at := data.find(_NCLX)) >= 0:
        primaries, transfer = struct.unpack_from(">HH", data, at + len(_NCLX))
        if transfer in _CODE_HDR:
            found = f"a picture of high dynamic range ({_CODE_HDR[transfer]})"
            raise refused(MediaReason.TYPE_NOT_SUPPORTED, "image", found, "pictures of standard dynamic range")
        gamut = _CODE_PRIMARIES.get(primaries)
        return None if gamut is None else lambda pixels: _to_srgb(pixels, gamut, _srgb_to_light)
    if _adobe_rgb(image):
        return lambda pixels: _to_srgb(pixels, ADOBE, lambda signal: signal**_ADOBE_GAMMA)
    return None


def _adobe_rgb(image: Image.Image) -> bool:
    """Whether a camera says Adobe RGB: colour space 2, or R03 as the name of interoperability (DCF 2.0)."""
    try:
        exif = image.getexif()
        colour_space = exif.get_ifd(_EXIF_FOLDER).get(_COLOUR_SPACE)
        return colour_space == 2 or exif.get_ifd(_INTEROP_FOLDER).get(_INTEROP_INDEX) == "R03"
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return False


def _to_srgb(pixels: Pixels, gamut: Primaries, to_light: Callable[[Linear], Linear]) -> Pixels:
    table = to_light(np.arange(256, dtype=np.float32) / 255)
    light = np.clip(table[pixels] @ to_bt709(gamut).T, 0, 1)
    return to_bytes(np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))


def _srgb_to_light(signal: Linear) -> Linear:
    light: Linear = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    return light
