"""The object of a long video, frame by frame: what `measure` says of a clip, said again and again."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from helios_training.world.measure import Frames, centre_of, segment, shape_of, shown, size_of

WINDOW = 11
"""Frames that are looked at together: a third of a chunk, so that a window ends where a chunk does."""


@dataclass(frozen=True, kw_only=True)
class Track:
    """What is seen in each of T frames; None where there is no object.

    present: (T) bool. centre: (T, 2) of x and y in heights, NaN where there is no object.
    """

    colour: list[str | None]
    shape: list[str | None]
    size: list[str | None]
    present: NDArray[np.bool_]
    centre: NDArray[np.floating[Any]]


def follow(frames: Frames) -> Track:
    """Looks at (T, H, W, 3) in windows, so that an object may change on its way. Raises ValueError for no frames."""
    if not len(frames):
        raise ValueError("frames: none are given; allowed: at least one")
    words: list[tuple[str | None, str | None, str | None]] = []
    present, centre = np.zeros(len(frames), dtype=bool), np.full((len(frames), 2), np.nan)
    for first in range(0, len(frames), WINDOW):
        colour, masks = segment(frames[first : first + WINDOW])
        there = shown(masks)
        seen = (colour, shape_of(masks[there]), size_of(masks[there])) if there.any() else (None, None, None)
        words += [seen if here else (None, None, None) for here in there]
        present[first : first + WINDOW] = there
        for number in np.nonzero(there)[0]:
            centre[first + number] = centre_of(masks[number])
    colours, shapes, sizes = map(list, zip(*words, strict=True))
    return Track(colour=colours, shape=shapes, size=sizes, present=present, centre=centre)
