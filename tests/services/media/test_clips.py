"""Clips of every kind: first frame, tail and timing."""

from fractions import Fraction

import numpy as np
import pytest

from helios_engine.errors import InvalidField
from helios_services.config import MediaConfig
from helios_services.media import clip as clip_module
from helios_services.media.errors import MediaError, MediaReason
from helios_services.media.inputs import Clip, decode_clip
from helios_services.media.resample import Resampler
from helios_services.media.wire import ClipJob
from services.media.files import ENCODERS, HEIGHT, LIMITS, WIDTH, Pixels, clip, gradient, level, psnr, steps, still
from services.media.formats import Clip as Woven
from services.media.formats import encode


def decode(
    data: bytes,
    codec: str = "h264",
    *,
    height: int = HEIGHT,
    width: int = WIDTH,
    fps: int = 24,
    keep_last: int = 33,
    limits: MediaConfig = LIMITS,
) -> Clip:
    kind = f"video/{ENCODERS[codec][1]}"
    return decode_clip(data, kind, height=height, width=width, fps=fps, keep_last=keep_last, limits=limits)


def moving(count: int) -> list[Pixels]:
    return [np.roll(gradient(), 2 * k, axis=1) // 2 + 60 for k in range(count)]


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9-mp4", "av1-mp4", "vp8", "vp9", "av1"])
def test_codecs(codec: str) -> None:
    frames = moving(40)
    result = decode(clip(frames, codec), codec)
    assert result.num_frames == 40
    assert result.first.shape == (HEIGHT, WIDTH, 3)
    assert result.tail.shape == (33, HEIGHT, WIDTH, 3)
    assert result.first.dtype == result.tail.dtype == np.uint8
    assert psnr(result.first, frames[0]) > 26
    for got, made in zip(result.tail, frames[-33:], strict=True):
        assert psnr(got, made) > 26  # chroma is subsampled
    # and no other frame fits better: nothing is off by one
    errors = [[float(np.mean((got.astype(float) - made) ** 2)) for made in frames] for got in result.tail]
    assert np.argmin(errors, axis=1).tolist() == list(range(7, 40))


@pytest.mark.parametrize("codec", ["h264", "vp9"])
def test_sound_is_ignored(codec: str) -> None:
    assert decode(clip(steps(33), codec, sound=True), codec).num_frames == 33


def test_full_range_and_ten_bits() -> None:
    for pix_fmt in ("yuvj420p", "yuv420p10le", "yuv444p"):
        assert psnr(decode(clip(moving(33), pix_fmt=pix_fmt)).first, moving(1)[0]) > 26


def test_fragmented_files() -> None:
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    assert decode(clip(steps(40), options=options)).num_frames == 40


@pytest.mark.parametrize(("keep_last", "kept"), [(1, 1), (33, 33), (40, 40), (99, 40)])
def test_tails(keep_last: int, kept: int) -> None:
    result = decode(clip(steps(40)), keep_last=keep_last)
    assert [level(frame) for frame in result.tail] == list(range(40 - kept, 40))
    assert level(result.first) == 0


@pytest.mark.parametrize("codec", ["h264", "vp9"])
@pytest.mark.parametrize(("fps", "count"), [(12, 33), (24, 66), (48, 132), (30, 83)])
def test_other_frame_rates_take_the_nearest_frame_before(codec: str, fps: int, count: int) -> None:
    result = decode(clip(steps(66), codec), codec, fps=fps, keep_last=200)
    assert result.num_frames == count  # 2.75 s
    slack = Fraction(1, 1000) if codec == "vp9" else 0  # WebM counts milliseconds
    assert [level(frame) for frame in result.tail] == [int((Fraction(k, fps) + slack) * 24) for k in range(count)]


@pytest.mark.parametrize("codec", ["h264", "vp9"])
def test_variable_frame_rate(codec: str) -> None:
    # frame k lasts 20, 100 or 40 ms
    lengths = [Fraction((20, 100, 40)[k % 3], 1000) for k in range(45)]
    times = [sum(lengths[:k], Fraction(0)) for k in range(45)]
    result = decode(clip(steps(45), codec, times=times), codec, fps=25, keep_last=200)
    expected = [max(k for k in range(45) if times[k] <= Fraction(tick, 25)) for tick in range(result.num_frames)]
    assert [level(frame) for frame in result.tail] == expected
    assert result.num_frames >= times[-1] * 25


def test_a_frame_held_to_the_end_fills_the_tail() -> None:
    times = [Fraction(k, 24) for k in range(33)] + [Fraction(10)]
    result = decode(clip(steps(34), times=times), keep_last=60)
    assert result.num_frames >= 240
    assert {level(frame) for frame in result.tail[:-5]} == {32}
    assert level(result.tail[-1]) == 33


def test_tails_are_whole_where_packets_say_that_the_clip_is_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_module, "_survey", lambda *_: Fraction(100))
    job = ClipJob(
        height=64, width=96, fps=24, keep_last=5, min_frames=33, max_pixels=10**5, max_frames=99, max_duration_s=9
    )
    first, tail, count = clip_module.decode_clip_frames(clip(steps(40)), "video/mp4", job)
    assert [level(frame) for frame in (first, *tail)] == [0, 35, 36, 37, 38, 39]
    assert count == 40


def test_time_starts_with_the_first_frame() -> None:
    times = [Fraction(5) + Fraction(k, 24) for k in range(40)]
    assert decode(clip(steps(40), "vp9", times=times), "vp9").num_frames in (40, 41)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotated_clips(rotation: int) -> None:
    upright = gradient()
    stored = np.ascontiguousarray(np.rot90(upright, -rotation // 90))  # the matrix turns it counterclockwise
    assert psnr(decode(clip([stored] * 33, rotation=rotation)).first, upright) > 30


def test_pixels_that_are_not_square() -> None:
    squeezed = gradient(HEIGHT, WIDTH)[:, ::2].copy()
    assert psnr(decode(clip([squeezed] * 33, aspect=Fraction(2))).first, gradient()) > 28


def test_sizes_are_covered() -> None:
    result = decode(clip([gradient(128, 128)] * 33), height=64, width=128)
    assert psnr(result.first, gradient(128, 128)[32:96]) > 30


def test_clips_below_one_chunk() -> None:
    with pytest.raises(MediaError, match="32 frames at 24 frames/s is not allowed; allowed: at least 33") as caught:
        decode(clip(steps(32)))
    assert caught.value.reason == MediaReason.TOO_SHORT
    with pytest.raises(MediaError, match="20 frames at 12 frames/s"):
        decode(clip(steps(40)), fps=12)


@pytest.mark.parametrize(
    ("update", "reason", "named"),
    [
        ({"max_frames": 39}, MediaReason.TOO_LONG, "more than 39 frames"),
        ({"max_duration_s": 1.5}, MediaReason.TOO_LONG, "at most 1.5 s"),
        ({"max_pixels": HEIGHT * WIDTH - 1}, MediaReason.TOO_LARGE, "96x64 pixels"),
        ({"max_bytes": 1000}, MediaReason.TOO_LARGE, "at most 1000 bytes"),
    ],
)
@pytest.mark.parametrize("codec", ["h264", "vp9"])
def test_limits(codec: str, update: dict[str, float], reason: MediaReason, named: str) -> None:
    data = clip(moving(40), codec)
    with pytest.raises(MediaError) as caught:
        decode(data, codec, limits=LIMITS.model_copy(update=update))
    assert caught.value.reason == reason
    assert named in str(caught.value)


@pytest.mark.parametrize("codec", ["h264", "vp9"])
def test_clips_that_just_fit(codec: str) -> None:
    data = clip(moving(40), codec)
    fitting = {"max_frames": 40, "max_duration_s": 1.67, "max_pixels": HEIGHT * WIDTH, "max_bytes": len(data)}
    assert decode(data, codec, limits=LIMITS.model_copy(update=fitting)).num_frames == 40


def test_types_and_codecs_off_the_list() -> None:
    for data, content_type, reason, named in (
        (still(gradient()), "video/mp4", MediaReason.TYPE_MISMATCH, "image/png sent as video/mp4"),
        (b"nothing known", "video/mp4", MediaReason.TYPE_MISMATCH, "data of an unknown type"),
        (b"OggS" + bytes(99), "video/webm", MediaReason.TYPE_NOT_SUPPORTED, "video/ogg is not allowed"),
        (clip(steps(33)), "video/ogg", MediaReason.TYPE_NOT_SUPPORTED, "content type 'video/ogg'"),
        (clip(steps(33)).replace(b"ftypisom", b"ftypavif"), "video/mp4", MediaReason.TYPE_MISMATCH, "image/avif"),
    ):
        with pytest.raises(MediaError, match=named) as caught:
            decode_clip(data, content_type, height=64, width=96, fps=24, keep_last=33, limits=LIMITS)
        assert caught.value.reason == reason


def test_dolby_vision_without_a_common_base_is_refused_by_name() -> None:
    data = clip(steps(33), "hevc").replace(b"hev1", b"dvhe")
    with pytest.raises(MediaError, match="profile 5") as caught:
        decode(data, "hevc")
    assert caught.value.reason == MediaReason.TYPE_NOT_SUPPORTED


def test_interlaced_frames_are_one_moment() -> None:
    """Every other line shows the moment between two frames: a wrong program would show a comb."""
    frames = [np.full((HEIGHT, WIDTH, 3), 40, np.uint8) for _ in range(33)]
    for frame in frames:
        frame[1::2] = 200
    options = {"preset": "veryfast", "crf": "1", "flags": "+ildct+ilme", "x264-params": "tff=1"}
    woven = Woven(name="", container="mp4", suffix="mp4", encoder="libx264", options=options, pix_fmt="yuv444p")
    first = decode(encode(woven, frames)).first
    assert np.abs(first.astype(int) - 40).max() <= 6


@pytest.mark.parametrize("field", ["height", "width", "fps", "keep_last"])
def test_arguments_are_positive(field: str) -> None:
    arguments = {"height": 64, "width": 64, "fps": 24, "keep_last": 33, field: 0}
    with pytest.raises(InvalidField, match=f"{field}: 0 is not allowed"):
        decode_clip(b"", "video/mp4", **arguments, limits=LIMITS)


def test_resampler_repeats_and_leaves_out() -> None:
    resampler = Resampler[str](fps=10, slack_s=Fraction(0))
    shown = [*resampler.push(Fraction(3), "a"), *resampler.push(Fraction("3.3"), "b")]
    shown += [*resampler.push(Fraction("3.31"), "c"), *resampler.push(Fraction("3.32"), "d")]
    shown += resampler.finish(Fraction("0.2"))
    assert "".join(shown) == "aaabdd"
    assert list(Resampler[str](fps=10, slack_s=Fraction(0)).finish(Fraction(1))) == []
