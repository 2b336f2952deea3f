"""The metrics of a video: each a number for every frame, from which means, drift and courses follow alike.

None of them is a score of HeliosBench, whose models are not at hand; each is named for what it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bench.attributes import attributes
from benchmarks.bench.motion import motion
from benchmarks.bench.pictures import Palette, border_jumps, palette_distance, pictures
from benchmarks.bench.videos import Frames
from helios_training.world import Scene

Series = NDArray[np.floating[Any]]
"""(T): a value for each frame, NaN where there is none."""
EDGE = 0.15
"""The share of a video that is its start, and its end, as HeliosBench takes it."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """label, unit: as tables say it. signed: frames may cancel each other, and what is left counts without its sign."""

    name: str
    label: str
    unit: str
    signed: bool = False

    def of(self, series: Series) -> float | None:
        """The value of a part of a video; None where no frame has any."""
        seen = series[~np.isnan(series)]
        if not seen.size:
            return None
        mean = float(seen.mean())
        return abs(mean) if self.signed else mean


METRICS = (
    Metric(name="flow", label="motion: optical flow, magnitude", unit="heights/s"),
    Metric(name="flow_signed", label="motion: optical flow, signed", unit="heights/s", signed=True),
    Metric(name="interpolation_error", label="smoothness: error of the flow-warped frame between", unit="levels"),
    Metric(name="border_jump", label="jump at chunk borders, over the changes around", unit="ratio"),
    Metric(name="colour", label="colour is the caption's", unit="share"),
    Metric(name="shape", label="shape is the caption's", unit="share"),
    Metric(name="size", label="size is the caption's", unit="share"),
    Metric(name="speed", label="speed is the caption's", unit="share"),
    Metric(name="direction", label="direction is the caption's, first half second", unit="share"),
    Metric(name="axis", label="moves along the caption's axis", unit="share"),
    Metric(name="present", label="an object is there", unit="share"),
    Metric(name="persistent", label="the object goes on from the frame before", unit="share"),
    Metric(name="sharpness", label="sharpness: variance of the Laplacian", unit="levels²"),
    Metric(name="colourfulness", label="colourfulness (Hasler and Süsstrunk)", unit="levels"),
    Metric(name="saturation", label="saturation: widest minus narrowest channel", unit="levels"),
    Metric(name="red", label="mean red", unit="levels"),
    Metric(name="green", label="mean green", unit="levels"),
    Metric(name="blue", label="mean blue", unit="levels"),
    Metric(name="palette", label="palette: distance from a real clip's", unit="levels"),
)


def measure(frames: Frames, scene: Scene | None, palette: Palette | None) -> Mapping[str, Series]:
    """Every metric's series for (T, H, W, 3) uint8. scene, palette: None where there is nothing to compare with."""
    found = {**motion(frames), **pictures(frames), "border_jump": border_jumps(frames)}
    if scene is not None:
        found |= attributes(frames, scene)
    if palette is not None:
        found["palette"] = palette_distance(frames, palette)
    return found


def edge(frames: int) -> int:
    """How many frames the start and the end of a video have."""
    return max(4, int(EDGE * frames))
