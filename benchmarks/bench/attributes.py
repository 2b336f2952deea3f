"""Whether each frame shows what the small world's caption says, and whether the object goes on from frame to frame."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bench.videos import Frames
from helios_training.world import Scene
from helios_training.world.measure import direction_of, speed_of
from helios_training.world.scenes import DIRECTIONS, FPS, SPEEDS
from helios_training.world.track import Track, follow

Floats = NDArray[np.floating[Any]]
STRIDE = 4
"""Frames over which a speed is taken."""
FIRST = FPS // 2
"""Frames in which no object has come to a border yet."""
MAX_STEP = 3 * max(SPEEDS.values()) / FPS
"""Heights that an object may move between two frames and still be the same one."""


def attributes(frames: Frames, scene: Scene) -> dict[str, Floats]:
    """1 where a frame shows it, 0 where not, NaN where the question makes no sense; (T) each.

    direction is asked for before any border, and axis always: objects turn back at borders.
    """
    track = follow(frames)
    ahead, behind = _velocities(track)
    fastest = np.where(_pace(behind) > _pace(ahead), behind.T, ahead.T).T
    numbers = range(len(frames))
    directions = [direction_of(way) for way in np.nan_to_num(ahead)]
    turned = [direction_of(way) for way in np.nan_to_num(fastest)]
    speeds = [speed_of(pace) for pace in _pace(fastest)]
    return {
        "colour": _share(word == scene.colour for word in track.colour),
        "shape": _share(word == scene.shape for word in track.shape),
        "size": _share(word == scene.size for word in track.size),
        "speed": _share(word == scene.speed for word in speeds),
        "direction": np.array([float(directions[n] == scene.direction) if n < FIRST else np.nan for n in numbers]),
        "axis": _share(word is not None and _axis(word) == _axis(scene.direction) for word in turned),
        "present": track.present.astype(float),
        "persistent": _persistent(track),
    }


def _velocities(track: Track) -> tuple[Floats, Floats]:
    """(T, 2) each, heights a second, over the frames ahead and those behind; NaN where either end shows nothing.

    At a border one of the two is slowed down by the turn, the other is not.
    """
    ahead, behind = np.full((2, *track.centre.shape), np.nan)
    if len(track.centre) > STRIDE:
        ahead[:-STRIDE] = (track.centre[STRIDE:] - track.centre[:-STRIDE]) * FPS / STRIDE
        behind[STRIDE:] = ahead[:-STRIDE]
    return ahead, behind


def _pace(ways: Floats) -> Floats:
    """(T), 0 where there is no velocity."""
    pace: Floats = np.linalg.norm(np.nan_to_num(ways), axis=-1)
    return pace


def _persistent(track: Track) -> Floats:
    found = np.full(len(track.present), np.nan)
    for n in range(1, len(found)):
        both = track.present[n - 1] and track.present[n] and track.colour[n - 1] == track.colour[n]
        found[n] = both and float(np.linalg.norm(track.centre[n] - track.centre[n - 1])) <= MAX_STEP
    return found


def _axis(direction: str) -> bool:
    return DIRECTIONS[direction][0] == 0


def _share(answers: Any) -> Floats:
    return np.array([float(answer) for answer in answers])
