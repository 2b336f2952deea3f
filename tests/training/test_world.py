"""The world draws what its captions say."""

import numpy as np
import pytest

from helios_training.world import Scene, all_scenes, draw_clip, held_out_scenes, training_scenes
from helios_training.world.clips import positions, reflected
from helios_training.world.scenes import COLOURS, DIAMETERS, DIRECTIONS, FPS, SPEEDS

SIZE = {"height": 64, "width": 128}


def centroids(scene: Scene, seed: int, frames: int = 33) -> np.ndarray:
    """(T, 2) of x and y in heights, measured on the mask."""
    mask = draw_clip(scene, seed, frames=frames, **SIZE).mask.astype(np.float64)
    rows, columns = (np.arange(64) + 0.5) / 64, (np.arange(128) + 0.5) / 64
    total = mask.sum(axis=(1, 2))
    x = (mask.sum(axis=1) * columns).sum(axis=1) / total
    y = (mask.sum(axis=2) * rows).sum(axis=1) / total
    places: np.ndarray = np.stack([x, y], axis=1)
    return places


def test_captions_say_every_word_and_read_back() -> None:
    assert len(all_scenes()) == len({scene.caption for scene in all_scenes()}) == 2 * 8 * 4 * 2 * 4 * 5
    assert all(Scene.from_caption(scene.caption) == scene for scene in all_scenes())
    assert Scene.from_caption(" A small RED ball moves slowly left over the sea. ").colour == "red"


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("a small red cube moves slowly left over the sea", "shape: 'cube' is not allowed; allowed: ball, square"),
        ("two balls", "caption: 'two balls' is not allowed"),
    ],
)
def test_a_foreign_caption_is_named(caption: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Scene.from_caption(caption)


def test_held_out_scenes_are_not_trained_on_and_hold_every_word() -> None:
    assert len(held_out_scenes()) == 48
    assert not set(held_out_scenes()) & set(training_scenes())
    assert len(training_scenes()) == len(all_scenes()) - 48
    words = {word for scene in held_out_scenes() for word in scene.caption.split()}
    assert words == {word for scene in all_scenes() for word in scene.caption.split()}


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("speed", SPEEDS)
def test_objects_move_as_fast_and_where_the_caption_says(direction: str, speed: str) -> None:
    scene = Scene("small", "red", "ball", speed, direction, "sea")
    moved = np.diff(centroids(scene, 5)[:13], axis=0).mean(axis=0) * FPS
    expected = np.array(DIRECTIONS[direction]) * SPEEDS[speed]
    assert moved == pytest.approx(expected, abs=0.01)


def test_objects_reflect_at_the_borders_and_stay_inside() -> None:
    scene = Scene("big", "white", "square", "quickly", "up", "night")
    x, y = positions(scene, np.random.default_rng(3), np.arange(1440) / FPS, 2.0)
    margin = DIAMETERS["big"] / 2
    assert y.min() == pytest.approx(margin, abs=0.02)
    assert y.max() == pytest.approx(1 - margin, abs=0.02)
    assert np.ptp(x) == 0
    assert np.abs(np.diff(y)).max() <= SPEEDS["quickly"] / FPS + 1e-9
    assert reflected(np.array([0.0, 0.5, 1.5, 2.0, 2.25]), 1.0) == pytest.approx([0.0, 0.5, 0.5, 0.0, 0.25])


@pytest.mark.parametrize("colour", COLOURS)
def test_an_object_has_its_colour_and_its_size(colour: str) -> None:
    clip = draw_clip(Scene("big", colour, "ball", "slowly", "left", "desert"), 1, frames=1, **SIZE)
    inside = clip.frames[0][clip.mask[0] > 0.99].astype(float)
    assert np.abs(np.median(inside, axis=0) - COLOURS[colour]).max() < 40
    nearest = min(COLOURS, key=lambda name: np.abs(np.median(inside, axis=0) - COLOURS[name]).sum())
    assert nearest == colour
    area = np.pi * (DIAMETERS["big"] / 2 * 64) ** 2
    assert clip.mask.sum() == pytest.approx(area, rel=0.03)


def test_a_clip_is_a_function_of_scene_and_seed_and_can_begin_anywhere() -> None:
    scene = all_scenes()[777]
    whole = draw_clip(scene, 9, frames=66, **SIZE)
    again = draw_clip(scene, 9, frames=33, first_frame=33, **SIZE)
    assert np.array_equal(whole.frames[33:], again.frames)
    assert not np.array_equal(whole.frames, draw_clip(scene, 10, frames=66, **SIZE).frames)


def test_sizes_of_picture_look_alike() -> None:
    scene = all_scenes()[1234]
    small = draw_clip(scene, 2, frames=1, height=64, width=128).frames[0]
    large = draw_clip(scene, 2, frames=1, height=128, width=256).frames[0].astype(float)
    halved = large.reshape(64, 2, 128, 2, 3).mean(axis=(1, 3))
    assert np.abs(halved - small).mean() < 2.0
