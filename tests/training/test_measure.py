"""The measure sees what the world's captions say, on clips whose truth is known."""

import numpy as np
import pytest

from helios_training.aims import score
from helios_training.world import Scene, draw_clip
from helios_training.world.measure import agrees, look

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
    other = Scene("big", "red", "ball", "quickly", "up", "sea")
    assert not any(agrees(seen, other).values())


def test_aims_are_shares_of_videos() -> None:
    clips = [draw_clip(scene, 3, frames=33, height=64, width=128).frames for scene in SCENES[:2]]
    right = score(zip(SCENES[:2], clips, strict=True))
    assert (right.colour, right.shape, right.direction, right.speed) == (1.0, 1.0, 1.0, 1.0)
    swapped = score(zip(SCENES[:2], reversed(clips), strict=True))
    assert (swapped.videos, swapped.colour, swapped.present) == (2, 0.0, 1.0)
    with pytest.raises(ValueError, match="videos: none are given"):
        score([])


def test_nothing_is_seen_where_nothing_is() -> None:
    grey = np.full((5, 64, 128, 3), 110, dtype=np.uint8)
    seen = look(grey)
    assert seen.present == 0.0
    assert seen.shape is None
