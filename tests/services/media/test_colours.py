"""Colours of wide gamut and of high dynamic range arrive as an ordinary screen shows them."""

import io
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc
from numpy.typing import NDArray
from PIL import Image, ImageCms

from helios_services.media import colour
from helios_services.media.errors import MediaError, MediaReason
from helios_services.media.inputs import decode_clip, decode_image
from services.media.files import HEIGHT, LIMITS, WIDTH, Pixels, gradient, still

GRAYS = [(0, 0, 0), (0.05, 0.05, 0.05), (0.18, 0.18, 0.18), (0.4, 0.1, 0.1)]
PATCHES = np.array([*GRAYS, (0.1, 0.4, 0.1), (0.1, 0.1, 0.4), (0.3, 0.25, 0.15), (0.02, 0.2, 0.3)])
"""Linear light of BT.709, white is 1; the tone curve leaves it alone."""
SHOWN = (PATCHES ** (1 / 2.4) * 255).round()
BT709_TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
"""ITU-R BT.2087."""


def chart(patches: NDArray[Any]) -> NDArray[Any]:
    return patches.reshape(2, 4, 3).repeat(HEIGHT // 2, axis=0).repeat(WIDTH // 4, axis=1)


def middles(picture: Pixels) -> NDArray[np.int64]:
    return picture[16::32, 12::24].reshape(-1, 3).astype(int)


def tagged(signal: NDArray[Any], transfer: ColorTrc, primaries: ColorPrimaries, codec: str = "hevc") -> bytes:
    """33 frames of RGB from 0 to 1, as 10-bit HEVC or ProRes of BT.2020's matrix."""
    samples = (chart(np.clip(signal, 0, 1)) * 65535).round().astype(np.uint16)
    name, container, pix_fmt = {
        "hevc": ("libx265", "mp4", "yuv420p10le"),
        "prores": ("prores_ks", "mov", "yuv422p10le"),
    }[codec]
    file = io.BytesIO()
    with av.open(file, "w", format=container) as target:
        stream = target.add_stream(name, rate=24)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, pix_fmt
        context = stream.codec_context
        context.thread_count = 1
        context.color_trc, context.color_primaries = int(transfer), int(primaries)
        context.colorspace, context.color_range = int(Colorspace.BT2020), 1
        if codec == "hevc":
            context.options = {"crf": "4", "preset": "veryfast", "x265-params": "log-level=none"}
        for number in range(33):
            frame = av.VideoFrame.from_ndarray(samples, format="rgb48le")
            frame = frame.reformat(format=pix_fmt, dst_colorspace=int(Colorspace.BT2020), dst_color_range=1)
            frame.color_trc, frame.color_primaries, frame.pts = int(transfer), int(primaries), number
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return file.getvalue()


def seen(data: bytes, kind: str = "video/mp4", **size: int) -> NDArray[np.int64]:
    at = {"height": HEIGHT, "width": WIDTH} | size
    return middles(decode_clip(data, kind, **at, fps=24, keep_last=1, limits=LIMITS).first)


def pq(light: NDArray[Any]) -> NDArray[Any]:
    """cd/m2 -> signal; SMPTE ST 2084."""
    power = (light / 10000) ** 0.1593017578125
    signal: NDArray[Any] = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    return signal


def hlg(light: NDArray[Any]) -> NDArray[Any]:
    """cd/m2 of a screen of 1000 -> signal; ITU-R BT.2100."""
    screen = light / 1000
    luminance = (screen @ [0.2627, 0.6780, 0.0593])[:, None]
    scene = screen / np.maximum(luminance, 1e-9) ** (0.2 / 1.2)
    logarithm = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    signal: NDArray[Any] = np.where(scene <= 1 / 12, np.sqrt(3 * np.maximum(scene, 0)), logarithm)
    return signal


@pytest.mark.parametrize("codec", ["hevc", "prores"])
@pytest.mark.parametrize(
    ("transfer", "encode", "unmapped"), [(ColorTrc.SMPTE2084, pq, 40), (ColorTrc.ARIB_STD_B67, hlg, 15)]
)
def test_high_dynamic_range_is_mapped_to_an_ordinary_screen(
    transfer: ColorTrc, encode: Any, unmapped: int, codec: str
) -> None:
    light = PATCHES @ BT709_TO_BT2020.T * 203  # cd/m2 of white: ITU-R BT.2408
    data = tagged(encode(light), transfer, ColorPrimaries.BT2020, codec)
    found = seen(data, "video/quicktime" if codec == "prores" else "video/mp4")
    assert np.abs(found - SHOWN).max() <= 4
    plain = next(av.open(io.BytesIO(data)).decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(middles(plain) - SHOWN).max() > unmapped  # what it was before


def test_highlights_keep_their_order_and_their_hue() -> None:
    light = np.array([(100, 100, 100), (203, 203, 203), (400, 400, 400), (700, 700, 700)] * 2, float)
    light[4:] = [(1000, 1000, 1000), (4000, 4000, 4000), (800, 400, 400), (400, 400, 800)]
    found = seen(tagged(pq(light @ BT709_TO_BT2020.T), ColorTrc.SMPTE2084, ColorPrimaries.BT2020))
    grays = found[:6].mean(axis=1)
    assert (np.diff(grays[:3]) > 10).all()
    assert (np.diff(grays[2:5]) >= 0).all()
    assert grays[4] >= 253
    assert grays[5] >= 253
    assert found[6, 0] > found[6, 1] + 40
    assert abs(found[6, 1] - found[6, 2]) <= 4


def test_high_dynamic_range_at_other_sizes() -> None:
    data = tagged(pq(PATCHES @ BT709_TO_BT2020.T * 203), ColorTrc.SMPTE2084, ColorPrimaries.BT2020)
    clip = decode_clip(data, "video/mp4", height=32, width=32, fps=24, keep_last=1, limits=LIMITS)
    assert np.abs(clip.first[8::16, 12:20:7].reshape(-1, 3).astype(int) - SHOWN[[1, 2, 5, 6]]).max() <= 6


@pytest.mark.parametrize("transfer", [ColorTrc.BT2020_10, ColorTrc.BT709])
def test_wide_gamuts_of_standard_range_are_converted(transfer: ColorTrc) -> None:
    signal = (PATCHES @ BT709_TO_BT2020.T) ** (1 / 2.4)
    assert np.abs(seen(tagged(signal, transfer, ColorPrimaries.BT2020)) - SHOWN).max() <= 4


def test_matrices_are_the_standards() -> None:
    assert np.abs(np.linalg.inv(colour.to_bt709(colour.BT2020)) - BT709_TO_BT2020).max() < 1e-3


def test_the_curves_are_each_others_inverse() -> None:
    light = np.geomspace(0.01, 10000, 200).astype(np.float32)
    assert np.allclose(colour.pq_to_light(colour.light_to_pq(light)), light, rtol=2e-3)
    assert np.allclose(colour.light_to_pq(light), pq(light), atol=1e-5)


def profiled(picture: Image.Image, profile: bytes, kind: str) -> Pixels:
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {"quality": 97, "subsampling": 0}
    data = still(picture, kind, icc_profile=profile, **(options if kind != "PNG" else {}))
    return decode_image(data, f"image/{kind.lower()}", height=HEIGHT, width=WIDTH, limits=LIMITS)


def adobe_profile() -> bytes:
    """An ICC profile of Adobe RGB (1998), version 2: three matrix columns for D50 and a gamma of 563 / 256."""
    columns = {
        "rXYZ": (0.60974, 0.31111, 0.01947),
        "gXYZ": (0.20528, 0.62567, 0.06087),
        "bXYZ": (0.14919, 0.06322, 0.74457),
    }

    def fixed(*values: float) -> bytes:
        return b"".join(round(value * 65536).to_bytes(4, "big", signed=True) for value in values)

    bodies = {name: b"XYZ \0\0\0\0" + fixed(*value) for name, value in columns.items()}
    curve = b"curv\0\0\0\0" + (1).to_bytes(4, "big") + (563).to_bytes(2, "big") + b"\0\0"
    bodies |= dict.fromkeys(("rTRC", "gTRC", "bTRC"), curve)
    name = b"Adobe RGB (1998)\0"
    bodies |= {
        "desc": b"desc\0\0\0\0" + len(name).to_bytes(4, "big") + name + bytes(79),
        "cprt": b"text\0\0\0\0-\0\0\0",
    }
    bodies = {tag: body + bytes(-len(body) % 4) for tag, body in bodies.items()}
    table, data, at = len(bodies).to_bytes(4, "big"), b"", 132 + 12 * len(bodies)
    for tag, body in bodies.items():
        table += tag.encode() + (at + len(data)).to_bytes(4, "big") + len(body).to_bytes(4, "big")
        data += body
    header = bytearray(128)
    header[0:4] = (128 + len(table) + len(data)).to_bytes(4, "big")
    header[8:12], header[12:24], header[36:40] = b"\x02\x10\0\0", b"mntrRGB XYZ ", b"acsp"
    header[68:80] = fixed(0.9642, 1, 0.8249)
    return bytes(header) + table + data


def adobe_to_srgb(pixels: Pixels) -> NDArray[Any]:
    """By the numbers of Adobe RGB (1998) Color Image Encoding, 4.3."""
    light = (pixels / 255) ** (563 / 256)
    matrix = np.array([[1.3983557, -0.3983557, 0], [0, 1, 0], [0, -0.0429289, 1.0429289]])
    plain = np.clip(light @ matrix.T, 0, 1)
    shown: NDArray[Any] = np.where(plain <= 0.0031308, 12.92 * plain, 1.055 * plain ** (1 / 2.4) - 0.055) * 255
    return shown


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_profiles_are_converted_to_srgb(kind: str) -> None:
    frame = profiled(Image.fromarray(gradient()), adobe_profile(), kind)
    mean, most = (1.5, 20) if kind == "JPEG" else (0.6, 3)
    assert np.abs(frame - adobe_to_srgb(gradient())).mean() <= mean
    assert np.abs(frame - adobe_to_srgb(gradient())).max() <= most
    assert np.abs(frame.astype(int) - gradient()).mean() > 5  # what it was before


def test_adobe_rgb_without_a_profile_is_known_by_its_tag() -> None:
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 65535, 0xA005: {1: "R03"}}
    data = still(gradient(), "JPEG", quality=97, subsampling=0, exif=exif)
    frame = decode_image(data, "image/jpeg", height=HEIGHT, width=WIDTH, limits=LIMITS)
    assert np.abs(frame - adobe_to_srgb(gradient())).mean() <= 1.5
    assert np.abs(frame.astype(int) - gradient()).mean() > 5


def test_gray_and_transparent_pictures_with_profiles() -> None:
    layered = np.dstack([gradient(), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    layered[:, :32, 3] = 0
    frame = profiled(Image.fromarray(layered), adobe_profile(), "PNG")
    assert not frame[:, :32].any()
    assert np.abs(frame[:, 32:] - adobe_to_srgb(gradient())[:, 32:]).max() <= 3
    gray = Image.fromarray(gradient()).convert("L")
    assert np.array_equal(profiled(gray, adobe_profile(), "PNG")[..., 0], np.asarray(gray))  # not its kind


def test_pictures_of_srgb_stay_bit_for_bit() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(profiled(Image.fromarray(gradient()), srgb, "PNG"), gradient())


@pytest.mark.parametrize("profile", [b"x", b"\0" * 200, adobe_profile()[:150], adobe_profile()[:300]])
def test_broken_profiles_leave_the_picture(profile: bytes) -> None:
    assert np.abs(profiled(Image.fromarray(gradient()), profile, "PNG").astype(int) - gradient()).max() <= 20


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_pictures_of_high_dynamic_range_are_refused_by_name(transfer: int, name: str) -> None:
    data = still(gradient(), "AVIF", quality=90)
    at = data.index(b"colrnclx") + 8
    data = data[: at + 2] + transfer.to_bytes(2, "big") + data[at + 4 :]
    with pytest.raises(MediaError, match=rf"high dynamic range \({name}\)") as caught:
        decode_image(data, "image/avif", height=HEIGHT, width=WIDTH, limits=LIMITS)
    assert caught.value.reason == MediaReason.TYPE_NOT_SUPPORTED
