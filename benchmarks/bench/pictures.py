"""What frames look like as pictures: sharpness, colours, palette, and the jump where a chunk begins."""

from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.bench.videos import Frames
from helios_engine.request import FRAMES_PER_CHUNK

Floats = NDArray[np.floating[Any]]
Palette = Floats
"""(QUANTILES, 3): the quantiles of each channel's levels, the mean over a video's frames."""
QUANTILES = 64
AROUND = 8
"""Frames on each side of a chunk's border whose changes a jump is compared with."""
LEAST_CHANGE = 0.05
"""Levels: what a still picture changes through its encoding."""


def pictures(frames: Frames) -> dict[str, Floats]:
    """sharpness, colourfulness, saturation and the means of the channels, (T) each, in levels from 0 to 255.

    colourfulness: sqrt(var(rg) + var(yb)) + 0.3 sqrt(mean(rg)² + mean(yb)²), rg = R - G, yb = (R + G)/2 - B (Hasler and
    Süsstrunk 2003).
    """
    rows = [_picture(frame) for frame in frames]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _picture(frame: Frames) -> dict[str, float]:
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    levels = frame.astype(np.float64)
    red, green, blue = np.moveaxis(levels, -1, 0)
    rg, yb = red - green, (red + green) / 2 - blue
    return {
        "sharpness": float(cv2.Laplacian(grey, cv2.CV_64F).var()),
        "colourfulness": float(np.sqrt(rg.var() + yb.var()) + 0.3 * np.hypot(rg.mean(), yb.mean())),
        "saturation": float(
            (np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)).mean()
        ),
        "red": float(red.mean()),
        "green": float(green.mean()),
        "blue": float(blue.mean()),
    }


def palette_of(frames: Frames) -> Palette:
    """The palette that other videos are compared with."""
    palette: Palette = np.mean([_quantiles(frame) for frame in frames], axis=0)
    return palette


def palette_distance(frames: Frames, palette: Palette) -> Floats:
    """(T), levels: the mean distance of the channels' quantiles: the earth mover's distance of their levels."""
    return np.array([np.abs(_quantiles(frame) - palette).mean() for frame in frames])


def border_jumps(frames: Frames) -> Floats:
    """(T): at the first frame of each chunk but the first, its change over the median change around; NaN elsewhere."""
    jumps = np.full(len(frames), np.nan)
    changes = np.array([np.abs(b.astype(np.int16) - a).mean() for a, b in pairwise(frames)])
    for border in range(FRAMES_PER_CHUNK, len(frames), FRAMES_PER_CHUNK):
        at = border - 1  # changes[n] leads to frame n + 1
        near = np.concatenate([changes[max(at - AROUND, 0) : at], changes[at + 1 : at + 1 + AROUND]])
        jumps[border] = changes[at] / max(float(np.median(near)), LEAST_CHANGE)
    return jumps


def _quantiles(frame: Frames) -> Floats:
    ranks = (np.arange(QUANTILES) + 0.5) / QUANTILES
    found: Floats = np.quantile(frame.reshape(-1, 3).astype(np.float64), ranks, axis=0)
    return found
