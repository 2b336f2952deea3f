"""What a generated clip shows, by segmentation and the object's track: colour, shape, direction, speed, presence.

An object is the largest connected region that is close to one of the world's colours; backgrounds stay away from those.
No network is asked.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from helios_training.world.scenes import COLOURS, DIAMETERS, DIRECTIONS, FPS, SPEEDS, Scene

Frames = NDArray[np.uint8]
Mask = NDArray[np.bool_]
CLOSE = 62.0
"""RGB distance up to which a pixel has a colour of the world: shading stays within, backgrounds do not."""
BRIGHT = 213.0
"""Every channel of white is above it, of the palest sky none of the three."""
SMALLEST_SHARE = 0.25
"""An object is there in a frame that shows at least so much of the smallest object's area."""
LARGEST_SIDE = 0.6
"""Heights: what is longer is a part of the background."""


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What was seen of the object: None where nothing was found. present: share of frames; speed: heights a second."""

    colour: str | None
    shape: str | None
    direction: str | None
    speed: str | None
    present: float


def look(frames: Frames) -> Sighting:
    """The object of a clip, (T, H, W, 3). Direction and speed are those of its first section, before any border."""
    colour, masks = segment(frames)
    height = frames.shape[1]
    smallest = SMALLEST_SHARE * np.pi / 4 * (min(DIAMETERS.values()) * height) ** 2
    areas = masks.sum(axis=(1, 2))
    there = areas >= smallest
    present = float(there.mean())
    if colour is None or there.sum() < 2:
        return Sighting(colour=colour, shape=None, direction=None, speed=None, present=present)
    direction, speed = _motion(masks, there, height)
    return Sighting(colour=colour, shape=_shape(masks[there]), direction=direction, speed=speed, present=present)


def agrees(seen: Sighting, scene: Scene) -> dict[str, bool]:
    """Which words of the caption the clip shows."""
    return {name: getattr(seen, name) == getattr(scene, name) for name in ("colour", "shape", "direction", "speed")}


def segment(frames: Frames) -> tuple[str | None, Mask]:
    """The colour of objects that most of the picture shows, and where it is in each frame, (T, H, W)."""
    pixels = frames.astype(np.float32)
    best: tuple[float, str | None, Mask] = (0.0, None, np.zeros(frames.shape[:3], dtype=bool))
    for name, rgb in COLOURS.items():
        close = np.linalg.norm(pixels - np.array(rgb, dtype=np.float32), axis=-1) < CLOSE
        if name == "white":
            close &= pixels.min(axis=-1) > BRIGHT
        masks = np.stack([_object(mask) for mask in close])
        score = float(masks.sum(axis=(1, 2)).mean())
        if score > best[0]:
            best = (score, name, masks)
    return best[1], best[2]


def _object(mask: Mask) -> Mask:
    """The largest region, connected by edges, that is no wider and no higher than an object."""
    labels = np.zeros(mask.shape, dtype=np.int32)
    best, count, largest = 0, 0, 0
    limit = LARGEST_SIDE * mask.shape[0]
    for start in zip(*np.nonzero(mask), strict=True):
        if labels[start]:
            continue
        count += 1
        labels[start] = count
        waiting, rows, columns = [start], [], []
        while waiting:
            row, column = waiting.pop()
            rows.append(row)
            columns.append(column)
            for near in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                inside = 0 <= near[0] < mask.shape[0] and 0 <= near[1] < mask.shape[1]
                if inside and mask[near] and not labels[near]:
                    labels[near] = count
                    waiting.append(near)
        side = max(max(rows) - min(rows), max(columns) - min(columns)) + 1
        if len(rows) > largest and side <= limit:
            best, largest = count, len(rows)
    found: Mask = (labels == best) & mask
    return found


def _motion(masks: Mask, there: Mask, height: int) -> tuple[str, str]:
    """From a straight line through the first half second of the track."""
    seen = np.nonzero(there)[0]
    seen = seen[seen < seen[0] + FPS // 2]
    if len(seen) < 2:
        seen = np.nonzero(there)[0][:2]
    rows, columns = np.mgrid[: masks.shape[1], : masks.shape[2]]
    track = [(float(columns[masks[n]].mean()), float(rows[masks[n]].mean())) for n in seen]
    slopes = np.polyfit(seen / FPS, np.array(track) / height, 1)[0]
    direction = max(DIRECTIONS, key=lambda name: float(np.dot(slopes, DIRECTIONS[name])))
    pace = float(np.linalg.norm(slopes))
    return direction, min(SPEEDS, key=lambda name: abs(np.log(max(pace, 1e-3) / SPEEDS[name])))


def _shape(masks: Mask) -> str:
    """By the share of the bounding box that is filled, of its middle, and of its upper half."""
    votes = [_one_shape(mask) for mask in masks[:: max(len(masks) // 12, 1)]]
    return max(set(votes), key=votes.count)


def _one_shape(mask: Mask) -> str:
    rows, columns = np.nonzero(mask)
    box = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    height, width = box.shape
    middle = box[round(0.4 * height) : max(round(0.6 * height), 1), round(0.4 * width) : max(round(0.6 * width), 1)]
    if middle.size and middle.mean() < 0.5:
        return "ring"
    upper, lower = box[: height // 2].mean(), box[(height + 1) // 2 :].mean()
    if lower - upper > 0.25:
        return "triangle"
    corner = max(round(0.12 * min(height, width)), 1)
    corners = np.mean(
        [
            box[:corner, :corner].mean(),
            box[:corner, -corner:].mean(),
            box[-corner:, :corner].mean(),
            box[-corner:, -corner:].mean(),
        ]
    )
    return "square" if corners > 0.5 else "ball"
