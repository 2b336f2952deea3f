"""Each metric ranks a real clip above one that is spoiled in the way that the metric is there to see."""

from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest

from benchmarks.bench.metrics import METRICS, edge, measure
from benchmarks.bench.motion import flow_between, halfway
from benchmarks.bench.pictures import palette_of
from helios_training.world import draw_clip
from helios_training.world.scenes import FPS, SPEEDS
from support.spoiled_clips import (
    FRAMES,
    HEIGHT,
    SCENE,
    SEED,
    WIDTH,
    Frames,
    blurring,
    clip,
    fading,
    frozen,
    jittering,
    starting_again,
    vanishing,
)

CLIPS = {
    "real": clip,
    "other colour": lambda: clip(replace(SCENE, colour="green")),
    "other shape": lambda: clip(replace(SCENE, shape="ring")),
    "other size": lambda: clip(replace(SCENE, size="big")),
    "other way": lambda: clip(replace(SCENE, direction="left")),
    "across": lambda: clip(replace(SCENE, direction="down")),
    "slow": lambda: clip(replace(SCENE, speed="slowly")),
    "frozen": frozen,
    "jittering": jittering,
    "blurring": blurring,
    "fading": fading,
    "vanishing": vanishing,
    "starting again": starting_again,
}


@cache
def series(name: str) -> dict[str, np.ndarray]:
    return dict(measure(CLIPS[name](), SCENE, palette_of(clip(seed=8))))


def value(name: str, metric: str, part: slice = slice(None)) -> float:
    found = next(each for each in METRICS if each.name == metric).of(series(name)[metric][part])
    assert found is not None
    return found


def drift(name: str, metric: str) -> float:
    size = edge(FRAMES)
    return abs(value(name, metric, slice(0, size)) - value(name, metric, slice(-size, None)))


@pytest.mark.parametrize("metric", ["colour", "shape", "size", "speed", "direction", "axis", "present", "persistent"])
def test_a_real_clip_shows_its_caption_in_every_frame(metric: str) -> None:
    assert value("real", metric) == 1.0


@pytest.mark.parametrize(
    ("spoiled", "metrics"),
    [
        ("other colour", ["colour"]),
        ("other shape", ["shape"]),
        ("other size", ["size"]),
        ("other way", ["direction"]),
        ("across", ["direction", "axis"]),
        ("slow", ["speed"]),
        ("frozen", ["speed", "direction", "axis"]),
    ],
)
def test_a_word_that_is_wrong_is_missed_and_the_others_are_not(spoiled: str, metrics: list[str]) -> None:
    for metric in ("colour", "shape", "size", "speed", "direction", "axis", "present", "persistent"):
        assert value(spoiled, metric) == pytest.approx(float(metric not in metrics), abs=0.05), metric


def test_the_other_way_is_the_same_axis() -> None:
    assert value("other way", "axis") == 1.0


def test_an_object_that_vanishes_is_there_in_half_of_the_frames() -> None:
    for metric in ("present", "colour", "shape", "speed"):
        assert value("vanishing", metric) == pytest.approx(0.5, abs=0.12), metric
        assert drift("vanishing", metric) == 1.0
    assert value("vanishing", "persistent") < 0.55


def test_a_start_again_at_a_border_is_one_jump_and_one_object_less() -> None:
    assert value("starting again", "border_jump") > 2.5 * value("real", "border_jump")
    assert value("real", "border_jump") < 1.5
    broken = series("starting again")["persistent"]
    assert np.nonzero(broken == 0)[0].tolist() == [33]


def test_the_flow_of_an_object_is_its_speed_and_a_slower_one_has_less() -> None:
    drawn = draw_clip(SCENE, SEED, frames=2, height=HEIGHT, width=WIDTH)
    way = flow_between(*(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in drawn.frames)) * FPS / HEIGHT
    assert np.median(way[drawn.mask[0] > 0.9], axis=0) == pytest.approx([SPEEDS["quickly"], 0.0], abs=0.05)
    assert value("slow", "flow") < 0.6 * value("real", "flow")
    assert value("frozen", "flow") < 0.02 * value("real", "flow")


def test_jitter_is_motion_that_cancels_and_is_not_smooth() -> None:
    assert value("jittering", "flow") > 3 * value("real", "flow")
    assert value("jittering", "flow_signed") < 0.3 * value("jittering", "flow")
    assert value("jittering", "interpolation_error") > 4 * value("real", "interpolation_error")
    assert value("frozen", "interpolation_error") < 0.1 * value("real", "interpolation_error")


def test_what_is_lost_over_time_drifts_and_a_real_clip_does_not() -> None:
    for spoiled, metric in (
        ("blurring", "sharpness"),
        ("fading", "saturation"),
        ("fading", "colourfulness"),
        ("fading", "palette"),
        ("fading", "blue"),
    ):
        assert drift(spoiled, metric) > 5 * drift("real", metric), (spoiled, metric)
    size = edge(FRAMES)
    assert value("blurring", "sharpness", slice(-size, None)) < 0.5 * value("blurring", "sharpness", slice(0, size))
    assert value("fading", "saturation", slice(-size, None)) < 0.2 * value("fading", "saturation", slice(0, size))


def test_the_palette_is_that_of_the_caption() -> None:
    assert value("real", "palette") < 0.5 * value("other colour", "palette")


def test_flow_leads_from_the_first_picture_to_the_second_and_halfway_is_between() -> None:
    noise = np.random.default_rng(0).normal(size=(64, 128, 3))
    for axis in (0, 1):
        noise = np.sum([np.roll(noise, shift, axis=axis) for shift in range(-3, 4)], axis=0)
    picture = (128 + 80 * noise / np.abs(noise).max()).astype(np.uint8)
    frames: list[Frames] = [np.roll(picture, shift, axis=1) for shift in (0, 2, 4)]
    way = flow_between(*(frame[..., 1] for frame in (frames[0], frames[2])))
    inner = (slice(16, -16), slice(24, -24))
    assert np.median(way[inner][..., 0]) == pytest.approx(4.0, abs=0.5)
    assert np.median(way[inner][..., 1]) == pytest.approx(0.0, abs=0.2)
    missed = np.abs(halfway(frames[0], frames[2], way) - frames[1])[inner].mean()
    plain = np.abs((frames[0].astype(float) + frames[2]) / 2 - frames[1])[inner].mean()
    assert missed < 0.35 * plain
