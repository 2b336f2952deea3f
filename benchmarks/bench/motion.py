"""Motion and smoothness by Farneback's dense optical flow (OpenCV), which HeliosBench takes for motion, too."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.bench.videos import Frames
from helios_training.world.scenes import FPS

Flow = NDArray[np.floating[Any]]
Grey = NDArray[np.uint8]


def motion(frames: Frames) -> dict[str, NDArray[np.floating[Any]]]:
    """flow, flow_signed, interpolation_error, (T) each.

    flow: the mean length of the flow to a frame from the one before, heights a second. flow_signed: the mean of its two
    components, in which opposite ways cancel. interpolation_error: how far every second frame is from the one that its
    two neighbours give, mean absolute difference in levels.
    """
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    heights_per_s = FPS / frames.shape[1]
    found = {name: np.full(len(frames), np.nan) for name in ("flow", "flow_signed", "interpolation_error")}
    for number in range(1, len(frames)):
        way = flow_between(greys[number - 1], greys[number]) * heights_per_s
        found["flow"][number] = np.linalg.norm(way, axis=-1).mean()
        found["flow_signed"][number] = way.mean()
    for number in range(1, len(frames) - 1, 2):
        way = flow_between(greys[number - 1], greys[number + 1])
        middle = halfway(frames[number - 1], frames[number + 1], way)
        found["interpolation_error"][number] = np.abs(middle - frames[number]).mean()
    return found


def flow_between(before: Any, after: Any) -> Flow:
    """(H, W, 2): by how many pixels in x and y what is at a pixel of the first picture moves to the second."""
    way: Any = cv2.calcOpticalFlowFarneback(
        before,
        after,
        np.zeros((*before.shape, 2), dtype=np.float32),
        pyr_scale=0.5,
        levels=3,
        winsize=15,
        iterations=3,
        poly_n=5,
        poly_sigma=1.2,
        flags=0,
    )
    found: Flow = way
    return found


def halfway(before: Frames, after: Frames, way: Flow) -> NDArray[np.floating[Any]]:
    """The picture between two, each moved half of the way: out(p) = (before(p - way/2) + after(p + way/2)) / 2."""
    height, width = before.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    half = way.astype(np.float32) / 2
    moved = [
        cv2.remap(
            picture.astype(np.float32),
            x + sign * half[..., 0],
            y + sign * half[..., 1],
            interpolation=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for picture, sign in ((before, -1.0), (after, 1.0))
    ]
    between: NDArray[np.floating[Any]] = (moved[0] + moved[1]) / 2
    return between
