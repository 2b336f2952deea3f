"""Files made to break a decoder: each gives a frame or a MediaError, and the next good file decodes."""

import io
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from helios_services.media.errors import MediaError, MediaReason
from helios_services.media.inputs import decode_clip, decode_image
from helios_services.media.remux import remux
from services.media.files import HEIGHT, LIMITS, WIDTH, clip, gradient, noise, steps, still

MUTATIONS = 24
TIGHT = LIMITS.model_copy(update={"decode_timeout_s": 60.0, "cpu_s": 10})
FILES = {
    "image/png": still(gradient()),
    "image/jpeg": still(gradient(), "JPEG"),
    "image/webp": still(gradient(), "WEBP"),
}


@pytest.fixture(autouse=True)
def the_next_file_decodes() -> Iterator[None]:
    yield
    assert np.array_equal(decode_image(still(noise()), "image/png", height=HEIGHT, width=WIDTH, limits=LIMITS), noise())


@pytest.fixture(scope="module")
def clips() -> dict[str, bytes]:
    return {codec: clip(steps(40), codec) for codec in ("h264", "hevc", "vp8", "vp9", "av1")}


def attempt(data: bytes, content_type: str) -> MediaError | None:
    """The error, or None if there was a result of the right shape."""
    try:
        if content_type.startswith("image/"):
            frame = decode_image(data, content_type, height=HEIGHT, width=WIDTH, limits=TIGHT)
            assert frame.shape == (HEIGHT, WIDTH, 3)
        else:
            size = {"height": HEIGHT, "width": WIDTH, "fps": 24, "keep_last": 33}
            result = decode_clip(data, content_type, **size, limits=TIGHT)
            assert result.tail.shape == (33, HEIGHT, WIDTH, 3)
            assert 33 <= result.num_frames <= TIGHT.max_duration_s * 24
    except MediaError as refusal:
        error = refusal
    else:
        return None
    assert len(str(error)) < 300
    assert "Traceback" not in str(error)
    return error


def mutations(data: bytes, seed: int) -> Iterator[bytes]:
    """Flipped bytes, wiped, repeated, removed and swapped stretches; the first 16 bytes stay, they name the type."""
    rng = np.random.default_rng(seed)
    for number in range(MUTATIONS):
        changed = bytearray(data)
        for _ in range(int(rng.integers(1, 6))):
            at = int(rng.integers(16, len(changed)))
            length = int(rng.integers(1, 32))
            match number % 5:
                case 0:
                    changed[at] ^= 1 << int(rng.integers(8))
                case 1:
                    changed[at : at + length] = rng.bytes(len(changed[at : at + length]))
                case 2:
                    changed[at : at + 4] = b"\xff\xff\xff\xff"[: len(changed[at : at + 4])]
                case 3:
                    changed[at:at] = changed[at : at + length]
                case _:
                    del changed[at : at + length]
        yield bytes(changed)


def attempt_all(files: list[bytes], content_type: str) -> list[MediaError | None]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(attempt, files, [content_type] * len(files)))


@pytest.mark.parametrize("content_type", list(FILES))
def test_mutated_stills(content_type: str) -> None:
    attempt_all(list(mutations(FILES[content_type], seed=len(content_type))), content_type)


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp8", "vp9", "av1"])
def test_mutated_clips(clips: dict[str, bytes], codec: str) -> None:
    content_type = "video/mp4" if codec in ("h264", "hevc") else "video/webm"
    attempt_all(list(mutations(clips[codec], seed=ord(codec[0]))), content_type)


@pytest.mark.parametrize("content_type", list(FILES))
def test_truncated_stills(content_type: str) -> None:
    data = FILES[content_type]
    errors = attempt_all([data[: int(len(data) * part)] for part in (0.1, 0.5, 0.9)], content_type)
    assert {error and error.reason for error in errors} == {MediaReason.UNREADABLE}


@pytest.mark.parametrize("kind", ["index last", "index first", "webm"])
def test_truncated_clips(kind: str, tmp_path: Path) -> None:
    data, content_type = clip(steps(80)), "video/mp4"
    if kind == "index first":
        fragmented = clip(steps(80), options={"movflags": "frag_keyframe+empty_moov+default_base_moof"})
        remux([fragmented], tmp_path / "clip.mp4")
        data = (tmp_path / "clip.mp4").read_bytes()
    elif kind == "webm":
        data, content_type = clip(steps(80), "vp9"), "video/webm"
    assert attempt(data, content_type) is None
    errors = attempt_all([data[: int(len(data) * part)] for part in (0.05, 0.4, 0.9, 0.99)], content_type)
    assert {error and error.reason for error in errors} == {MediaReason.UNREADABLE}


def test_streamed_webm_has_no_length() -> None:
    data = bytearray(clip(steps(40), "vp9"))
    at = data.index(b"\x18\x53\x80\x67") + 4
    data[at : at + 8] = b"\x01" + b"\xff" * 7
    assert attempt(bytes(data), "video/webm") is None


def poked(data: bytes, box: bytes, offset: int, value: bytes) -> bytes:
    """`value` written `offset` bytes after the box's type."""
    changed = bytearray(data)
    at = changed.index(box) + len(box) + offset
    changed[at : at + len(value)] = value
    return bytes(changed)


@pytest.mark.parametrize(
    ("box", "offset", "value", "reason"),
    [
        (b"stts", 12, b"\0\xff\xff\xff", MediaReason.TOO_LONG),
        (b"mdhd", 16, b"\x7f\xff\xff\xff", None),
        (b"mvhd", 16, b"\x7f\xff\xff\xff", None),
        (b"mdhd", 12, b"\0\0\0\0", None),
        (b"tkhd", 76, b"\x7f\xff\0\0\x7f\xff\0\0", None),
        (b"avc1", 24, b"\xff\xff\xff\xff", None),
        (b"stts", 8, b"\xff\xff\xff\xff", None),
        (b"stsz", 8, b"\xff\xff\xff\xff", None),
        (b"stsz", 4, b"\x7f\xff\xff\xff", None),
        (b"stco", 8, b"\xff\xff\xff\xff", None),
        (b"stsd", -8, b"\xff\xff\xff\xff", None),
        (b"moov", -8, b"\xff\xff\xff\xff", None),
        (b"avcC", 6, b"\xff\xff", None),
    ],
)
def test_mp4_headers_that_lie(
    clips: dict[str, bytes], box: bytes, offset: int, value: bytes, reason: MediaReason | None
) -> None:
    error = attempt(poked(clips["h264"], box, offset, value), "video/mp4")
    if reason is not None:
        assert error is not None
        assert error.reason == reason


def test_a_webm_that_claims_a_long_duration(clips: dict[str, bytes]) -> None:
    error = attempt(poked(clips["vp9"], b"\x44\x89\x88", 0, struct.pack(">d", 1e9)), "video/webm")  # ms
    assert error is not None
    assert error.reason == MediaReason.TOO_LONG
    assert "1e+06 s is not allowed; allowed: at most 300 s" in str(error)


def test_a_long_hold_between_two_frames_is_a_long_clip() -> None:
    times = [*(Fraction(k, 24) for k in range(39)), Fraction(4000)]
    error = attempt(clip(steps(40), "vp9", times=times), "video/webm")
    assert error is not None
    assert error.reason == MediaReason.TOO_LONG


def test_a_clip_that_grows_on_the_way() -> None:
    small, large = clip(steps(40), "vp8"), clip(steps(40, 512, 512), "vp8")
    file = io.BytesIO()
    with (
        av.open(io.BytesIO(small)) as first,
        av.open(io.BytesIO(large)) as second,
        av.open(file, "w", "webm") as target,
    ):
        stream = target.add_stream_from_template(first.streams.video[0])
        for number, packet in enumerate([*first.demux(video=0), *second.demux(video=0)]):
            if packet.size:
                packet.stream, packet.pts, packet.dts = stream, number * 40, number * 40
                target.mux(packet)
    assert attempt(file.getvalue(), "video/webm") is None
    size = {"height": HEIGHT, "width": WIDTH, "fps": 24, "keep_last": 33}
    limits = TIGHT.model_copy(update={"max_pixels": 256 * 256})
    with pytest.raises(MediaError) as caught:
        decode_clip(file.getvalue(), "video/webm", **size, limits=limits)
    assert caught.value.reason in (MediaReason.TOO_LARGE, MediaReason.UNREADABLE)


def test_playlists_and_references_are_not_followed() -> None:
    outside = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + b"#EXTM3U\nfile:///etc/passwd\n"
    error = attempt(outside, "video/mp4")
    assert error is not None
    assert error.reason == MediaReason.UNREADABLE
