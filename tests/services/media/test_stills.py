"""Pictures of every kind, as frames."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from helios_services.media.cover import cover
from helios_services.media.errors import MediaError, MediaReason
from helios_services.media.inputs import decode_image
from services.media.files import HEIGHT, LIMITS, WIDTH, Pixels, chunk, gradient, noise, png, psnr, still


def decode(data: bytes, kind: str = "png", height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    return decode_image(data, f"image/{kind}", height=height, width=width, limits=LIMITS)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_pictures_of_the_right_size_are_bit_exact(kind: str, options: dict[str, bool]) -> None:
    frame = decode(still(noise(), kind, **options), kind.lower())
    assert np.array_equal(frame, noise())
    assert frame.dtype == np.uint8
    assert frame.flags.writeable


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95}), ("MPO", {})])
def test_lossy_pictures_are_close(kind: str, options: dict[str, int]) -> None:
    frame = decode(still(gradient(), kind, **options), "jpeg" if kind == "MPO" else kind.lower())
    assert psnr(frame, gradient()) > 35


def test_progressive_and_cmyk_jpegs() -> None:
    assert psnr(decode(still(gradient(), "JPEG", quality=95, progressive=True), "jpeg"), gradient()) > 35
    cmyk = Image.fromarray(gradient()).convert("CMYK")
    assert psnr(decode(still(cmyk, "JPEG", quality=95), "jpeg"), np.asarray(cmyk.convert("RGB"))) > 35


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "PA"])
def test_modes_of_png(mode: str) -> None:
    image = Image.fromarray(gradient()).convert("P" if mode == "PA" else mode)
    if mode == "PA":  # a palette with alpha
        image.putpalette(np.repeat(np.arange(256), 3).astype(np.uint8).tolist())
        data, levels = still(image, transparency=bytes(range(256))), np.arange(256)
        expected = ((levels * levels / 255).round().astype(np.uint8))[np.asarray(image)][..., None].repeat(3, axis=-1)
        assert np.abs(decode(data).astype(int) - expected).max() <= 1
        return
    assert np.array_equal(decode(still(image)), np.asarray(image.convert("RGB")))


def test_alpha_is_put_on_black() -> None:
    layered = np.dstack([gradient(), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    layered[:, :32, 3], layered[:, 32:64, 3] = 0, 128
    for kind in ("PNG", "WEBP"):
        frame = decode(
            still(layered, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})), kind.lower()
        )
        assert not frame[:, :32].any()
        assert np.abs(frame[:, 32:64] - gradient()[:, 32:64] * (128 / 255)).max() <= 1
        assert np.array_equal(frame[:, 64:], gradient()[:, 64:])


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_keep_the_high_byte(colour: int, channels: int) -> None:
    samples = np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH, channels)).astype(">u2")
    if channels in (2, 4):
        samples[..., -1] = 65535
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    shown = (samples >> 8).astype(np.uint8)[..., : 3 if channels > 2 else 1]
    expected = np.broadcast_to(shown, (HEIGHT, WIDTH, 3))
    assert np.array_equal(decode(png(WIDTH, HEIGHT, depth=16, colour=colour, rows=rows)), expected)


def test_colour_keys() -> None:
    samples = np.full((HEIGHT, WIDTH), 0x1234, ">u2")
    samples[: HEIGHT // 2] = 0xFF00
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    frame = decode(png(WIDTH, HEIGHT, depth=16, colour=0, rows=rows, extra=chunk(b"tRNS", b"\xff\0")))
    assert not frame[: HEIGHT // 2].any()
    assert (frame[HEIGHT // 2 :] == 0x12).all()
    wide = b"".join(b"\0" + np.repeat(row, 3).tobytes() for row in samples)
    frame = decode(png(WIDTH, HEIGHT, depth=16, colour=2, rows=wide, extra=chunk(b"tRNS", b"\xff\0" * 3)))
    assert (frame[: HEIGHT // 2] == 0xFF).all()
    eight = Image.fromarray(gradient())
    red, green, blue = gradient()[3, 5].tolist()
    frame = decode(still(eight, transparency=(red, green, blue)))
    assert not frame[3, 5].any()
    assert np.array_equal(frame[40:], gradient()[40:])


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_give_their_first_frame(kind: str) -> None:
    others = [Image.fromarray(255 - gradient())] * 3
    options = {"save_all": True, "append_images": others, "duration": 50}
    data = still(gradient(), kind, **options, **({"lossless": True} if kind == "WEBP" else {}))
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) > 1
    assert np.array_equal(decode(data, kind.lower()), gradient())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation: int) -> None:
    # row and column that the file's first row and column show, after EXIF's definition
    upright = gradient()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.ascontiguousarray(stored)
    assert np.array_equal(decode(still(pixels, "PNG", exif=exif)), upright)
    if orientation in (6, 7):
        assert psnr(decode(still(pixels, "JPEG", exif=exif, quality=95), "jpeg"), upright) > 35


@pytest.mark.parametrize("exif", [b"", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"nonsense"])
def test_broken_exif_leaves_the_picture(exif: bytes) -> None:
    assert psnr(decode(still(gradient(), "JPEG", quality=95, exif=b"Exif\0\0" + exif), "jpeg"), gradient()) > 35


@pytest.mark.parametrize(("height", "width"), [(32, 96), (64, 32), (128, 192), (64, 97), (16, 16), (1, 1)])
def test_other_sizes_are_covered_from_the_middle(height: int, width: int) -> None:
    frame = decode(still(gradient()), height=height, width=width)
    scale = max(height / HEIGHT, width / WIDTH)
    y = (np.arange(height) + 0.5 - height / 2) / scale + HEIGHT / 2
    x = (np.arange(width) + 0.5 - width / 2) / scale + WIDTH / 2
    # the gradient is linear, so every pixel's value says where it came from
    assert np.abs(frame[..., 0] - ((x - 0.5) * 200 / WIDTH + 20)[None]).max() <= 2.5
    assert np.abs(frame[..., 1] - ((y - 0.5) * 200 / HEIGHT + 20)[:, None]).max() <= 2.5


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    frame = cover(Image.fromarray(stripes), 16, 16)
    assert np.abs(frame[:, 2:-2].astype(int) - 127).max() <= 2


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1)])
def test_extreme_shapes(size: tuple[int, int]) -> None:
    assert (decode(still(Image.new("RGB", size, (9, 8, 7)))) == (9, 8, 7)).all()


@pytest.mark.parametrize(
    ("content_type", "data", "reason", "named"),
    [
        ("image/tiff", still(gradient(), "TIFF"), MediaReason.TYPE_NOT_SUPPORTED, "image/png, image/jpeg, image/webp"),
        ("", still(gradient()), MediaReason.TYPE_NOT_SUPPORTED, "content type ''"),
        ("x" * 5000, still(gradient()), MediaReason.TYPE_NOT_SUPPORTED, "xxx…"),
        ("video/mp4", still(gradient()), MediaReason.TYPE_NOT_SUPPORTED, "'video/mp4'"),
        ("image/png", still(gradient(), "TIFF"), MediaReason.TYPE_NOT_SUPPORTED, "image: image/tiff is not allowed"),
        ("image/webp", b"RIFF\0\0\0\0AVI LIST", MediaReason.TYPE_MISMATCH, "video/x-msvideo"),
        ("image/png", b"", MediaReason.TYPE_MISMATCH, "data of an unknown type"),
        ("image/png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", MediaReason.TYPE_MISMATCH, "unknown type"),
    ],
)
def test_types_must_be_allowed_and_true(content_type: str, data: bytes, reason: MediaReason, named: str) -> None:
    with pytest.raises(MediaError) as caught:
        decode_image(data, content_type, height=HEIGHT, width=WIDTH, limits=LIMITS)
    assert caught.value.reason == reason
    assert named in str(caught.value)
    assert len(str(caught.value)) < 300


def test_content_types_may_have_capitals_and_parameters() -> None:
    frame = decode_image(still(noise()), "Image/PNG; q=1", height=HEIGHT, width=WIDTH, limits=LIMITS)
    assert np.array_equal(frame, noise())


def test_limits_of_bytes_and_pixels() -> None:
    data = still(noise())
    exact = LIMITS.model_copy(update={"max_bytes": len(data), "max_pixels": HEIGHT * WIDTH})
    assert np.array_equal(decode_image(data, "image/png", height=HEIGHT, width=WIDTH, limits=exact), noise())
    for limit, named in (("max_bytes", f"{len(data)} bytes"), ("max_pixels", "96x64 pixels")):
        tight = exact.model_copy(update={limit: getattr(exact, limit) - 1})
        with pytest.raises(MediaError, match=named) as caught:
            decode_image(data, "image/png", height=HEIGHT, width=WIDTH, limits=tight)
        assert caught.value.reason == MediaReason.TOO_LARGE
        assert f"at most {getattr(tight, limit)}" in str(caught.value)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_small_files_of_huge_pictures_are_refused_by_their_header(kind: str) -> None:
    if kind == "png":
        data = png(2**31 - 1, 2**31 - 1, depth=8, colour=6, rows=b"\0" * 1000)
    elif kind == "jpeg":
        small = still(gradient(), "JPEG")
        at = small.index(b"\xff\xc0") + 5
        data = small[:at] + b"\xff\xff\xff\xff" + small[at + 4 :]
    else:
        canvas = (16382).to_bytes(3, "little") * 2
        small = still(np.dstack([gradient(), gradient()[..., :1]]), "WEBP", exif=b"Exif\0\0")
        assert small[12:16] == b"VP8X"
        data = small[:24] + canvas + small[30:]
    with pytest.raises(MediaError, match="at most 16777216 pixels") as caught:
        decode(data, kind)
    assert caught.value.reason == MediaReason.TOO_LARGE


def test_a_bomb_within_the_pixel_limit_hits_the_memory_limit() -> None:
    # 1 bit per pixel in the file, 1.6 GB as RGB
    rows = zlib.compress(bytes((20000 // 8 + 1) * 20000))
    assert len(rows) < 10**5
    data = png(20000, 20000, depth=1, colour=0, rows=zlib.decompress(rows))
    limits = LIMITS.model_copy(update={"max_pixels": 20000**2, "memory_bytes": 512 * 1024**2})
    with pytest.raises(MediaError, match="more memory than the 536870912 bytes") as caught:
        decode_image(data, "image/png", height=HEIGHT, width=WIDTH, limits=limits)
    assert caught.value.reason == MediaReason.TOO_COMPLEX


def test_text_that_inflates_without_end_is_refused() -> None:
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(200 * 1024 * 1024)))
    rows = b"".join(b"\0" + row.tobytes() for row in noise())
    with pytest.raises(MediaError) as caught:
        decode(png(WIDTH, HEIGHT, depth=8, colour=2, rows=rows, extra=text))
    assert caught.value.reason == MediaReason.UNREADABLE
