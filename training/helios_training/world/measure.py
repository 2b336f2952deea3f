"""What a generated clip shows, by segmentation and the object's track: colour, shape, size, direction, speed, presence.

An object is the largest connected region that is close to one of the world's colours; backgrounds stay away from those.
No network is asked.
"""

from dataclasses import dataclass

import cv2
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
WORDS = ("colour", "shape", "size", "direction", "speed")
"""What a caption says of a clip."""
EXTENTS = {"small": 0.23, "big": 0.353}
"""The longer side of an object's box, in heights, as encoded videos show it: with pale edges and corners."""
CORNERS = 0.3
"""Which share of its box's corners a square fills at least: a ball fills none, an encoded square not all."""
OFF = 1.7
"""By which factor an extent or a speed may be off and still have a word: what hardly moves is not slow, but still."""


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """The words for what was seen of the object, None where there is none. present: share of frames with an object."""

    colour: str | None
    shape: str | None
    size: str | None
    direction: str | None
    speed: str | None
    present: float


def look(frames: Frames) -> Sighting:
    """The object of a clip, (T, H, W, 3). Direction and speed are those of its first section, before any border."""
    colour, masks = segment(frames)
    there = shown(masks)
    present = float(there.mean())
    if colour is None or there.sum() < 2:
        return Sighting(colour=colour, shape=None, size=None, direction=None, speed=None, present=present)
    direction, speed = _motion(masks, there)
    shape, size = shape_of(masks[there]), size_of(masks[there])
    return Sighting(colour=colour, shape=shape, size=size, direction=direction, speed=speed, present=present)


def agrees(seen: Sighting, scene: Scene) -> dict[str, bool]:
    """Which words of the caption the clip shows."""
    return {name: getattr(seen, name) == getattr(scene, name) for name in WORDS}


def segment(frames: Frames) -> tuple[str | None, Mask]:
    """The colour of objects that most of the picture shows, and where it is in each frame, (T, H, W)."""
    pixels = frames.astype(np.float32)
    best: tuple[float, str | None, Mask] = (0.0, None, np.zeros(frames.shape[:3], dtype=bool))
    for name, rgb in COLOURS.items():
        away = pixels - np.array(rgb, dtype=np.float32)
        close = np.einsum("thwc,thwc->thw", away, away) < CLOSE**2
        if name == "white":
            close &= pixels.min(axis=-1) > BRIGHT
        masks = np.stack([_object(mask) for mask in close])
        score = float(masks.sum(axis=(1, 2)).mean())
        if score > best[0]:
            best = (score, name, masks)
    return best[1], best[2]


def shown(masks: Mask) -> Mask:
    """In which frames enough of an object is seen, (T)."""
    smallest = SMALLEST_SHARE * np.pi / 4 * (min(DIAMETERS.values()) * masks.shape[1]) ** 2
    enough: Mask = masks.sum(axis=(1, 2)) >= smallest
    return enough


def centre_of(mask: Mask) -> tuple[float, float]:
    """The centroid (x, y) of what is not empty, in heights."""
    rows, columns = np.nonzero(mask)
    return float(columns.mean() + 0.5) / len(mask), float(rows.mean() + 0.5) / len(mask)


def direction_of(way: NDArray[np.floating]) -> str | None:
    """Where a velocity (x, y), heights a second, leads; None for what stands still."""
    if speed_of(float(np.linalg.norm(way))) is None:
        return None
    return max(DIRECTIONS, key=lambda name: float(np.dot(way, DIRECTIONS[name])))


def speed_of(pace: float) -> str | None:
    """The word for heights a second; None for what stands still or is faster than anything in the world."""
    return _nearest(pace, SPEEDS)


def size_of(masks: Mask) -> str | None:
    """The word for the median extent of objects, (T, H, W), none empty."""
    sides = [max(np.ptp(rows), np.ptp(columns)) + 1 for rows, columns in map(np.nonzero, masks)]
    return _nearest(float(np.median(sides)) / masks.shape[1], EXTENTS)


def _nearest(value: float, words: dict[str, float]) -> str | None:
    off = {name: abs(np.log(max(value, 1e-6) / each)) for name, each in words.items()}
    word = min(off, key=lambda name: off[name])
    return word if off[word] <= np.log(OFF) else None


def _object(mask: Mask) -> Mask:
    """The largest region, connected by edges, that is no wider and no higher than an object."""
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    limit = LARGEST_SIDE * mask.shape[0]
    areas = {
        label: int(boxes[label, cv2.CC_STAT_AREA])
        for label in range(1, count)
        if max(boxes[label, cv2.CC_STAT_WIDTH], boxes[label, cv2.CC_STAT_HEIGHT]) <= limit
    }
    found: Mask = labels == max(areas, key=lambda label: areas[label], default=-1)
    return found


def _motion(masks: Mask, there: Mask) -> tuple[str | None, str | None]:
    """From a straight line through the first half second of the track."""
    seen = np.nonzero(there)[0]
    seen = seen[seen < seen[0] + FPS // 2]
    if len(seen) < 2:
        seen = np.nonzero(there)[0][:2]
    track = np.array([centre_of(masks[n]) for n in seen])
    slopes = np.polyfit(seen / FPS, track, 1)[0]
    return direction_of(slopes), speed_of(float(np.linalg.norm(slopes)))


def shape_of(masks: Mask) -> str:
    """By the share of the bounding box that is filled, of its middle, and of its upper half. masks: none empty."""
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
    return "square" if corners > CORNERS else "ball"
