"""The measure sees what the world's captions say, on clips whose truth is known."""

import numpy as np
import pytest

from helios_training.aims import score
from helios_training.world import Scene, draw_clip
from helios_training.world.measure import agrees, look
from helios_training.world.track import WINDOW, follow

SCENES = [
    Scene("big", "white", "triangle", "slowly", "down", "sea"),
    Scene("small", "green", "ball", "quickly", "left", "meadow"),
    Scene("big", "blue", "ring", "slowly", "right", "sky"),
    Scene("small", "orange", "square", "quickly", "up", "desert"),
    Scene("big", "purple", "ball", "slowly", "up", "night"),
]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.caption)
def test_every_word_is_seen_in_a_real_clip(scene: Scene) -> None:
    clip = draw_clip(scene, 3, frames=33, height=64, width=128)
    seen = look(clip.frames)
    assert all(agrees(seen, scene).values()), seen
    assert seen.present > 0.95


def test_wrong_words_are_not_seen() -> None:
    clip = draw_clip(SCENES[0], 3, frames=33, height=64, width=128)
    seen = look(clip.frames)
    other = Scene("small", "red", "ball", "quickly", "up", "sea")
    assert not any(agrees(seen, other).values())


def test_aims_are_shares_of_videos() -> None:
    clips = [draw_clip(scene, 3, frames=33, height=64, width=128).frames for scene in SCENES[:2]]
    right = score(zip(SCENES[:2], clips, strict=True))
    assert (right.colour, right.shape, right.size, right.direction, right.speed) == (1.0, 1.0, 1.0, 1.0, 1.0)
    swapped = score(zip(SCENES[:2], reversed(clips), strict=True))
    assert (swapped.videos, swapped.colour, swapped.present) == (2, 0.0, 1.0)
    with pytest.raises(ValueError, match="videos: none are given"):
        score([])


def test_nothing_is_seen_where_nothing_is() -> None:
    grey = np.full((5, 64, 128, 3), 110, dtype=np.uint8)
    seen = look(grey)
    assert seen.present == 0.0
    assert seen.shape is None


def test_what_stands_still_has_no_direction_and_is_not_slow() -> None:
    clip = draw_clip(SCENES[0], 3, frames=1, height=64, width=128)
    seen = look(np.repeat(clip.frames, 12, axis=0))
    assert (seen.colour, seen.direction, seen.speed) == ("white", None, None)


def test_what_is_as_large_as_nothing_in_the_world_has_no_size() -> None:
    frames = np.full((3, 64, 128, 3), 110, dtype=np.uint8)
    frames[:, 30:38, 60:68] = (222, 40, 48)
    seen = look(frames)
    assert (seen.colour, seen.size) == ("red", None)


def test_a_track_sees_an_object_change_and_leave() -> None:
    first = draw_clip(Scene("big", "red", "ball", "slowly", "left", "sea"), 3, frames=WINDOW, height=64, width=128)
    then = draw_clip(Scene("small", "green", "ring", "slowly", "left", "sea"), 3, frames=WINDOW, height=64, width=128)
    nothing = np.full((2, 64, 128, 3), 110, dtype=np.uint8)
    track = follow(np.concatenate([first.frames, then.frames, nothing]))
    assert track.colour == ["red"] * WINDOW + ["green"] * WINDOW + [None, None]
    assert track.shape == ["ball"] * WINDOW + ["ring"] * WINDOW + [None, None]
    assert track.size == ["big"] * WINDOW + ["small"] * WINDOW + [None, None]
    assert track.present.tolist() == [True] * 2 * WINDOW + [False, False]
    columns = (np.arange(128) + 0.5) / 64
    true = [float((mask.sum(axis=0) * columns).sum() / mask.sum()) for mask in first.mask]
    assert track.centre[:WINDOW, 0] == pytest.approx(true, abs=0.01)
    assert np.isnan(track.centre[-2:]).all()
    with pytest.raises(ValueError, match="frames: none are given"):
        follow(nothing[:0])
