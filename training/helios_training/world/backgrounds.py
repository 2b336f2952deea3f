"""Backgrounds: gradients, horizons, dunes and waves, all in heights of the picture, so that any size looks alike.

Every function takes the pixel centres x, y (H, W) in heights and a generator for what differs between clips. It returns
(H, W, 3) in 0..1. Colours stay away from those of the objects (`scenes.COLOURS`).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.floating[Any]]
Draw = Callable[[Image, Image, np.random.Generator], Image]


def background(place: str, height: int, width: int, rng: np.random.Generator) -> Image:
    """The picture behind the object."""
    rows = (np.arange(height, dtype=np.float32) + 0.5) / height
    columns = (np.arange(width, dtype=np.float32) + 0.5) / height
    x, y = np.meshgrid(columns, rows)
    picture: Image = np.clip(_PLACES[place](x, y, rng), 0.0, 1.0).astype(np.float32)
    return picture


def _rgb(*values: int) -> Image:
    colour: Image = np.array(values, dtype=np.float32) / np.float32(255)
    return colour


def _fade(y: Image, top: Image, bottom: Image, first: float = 0.0, last: float = 1.0) -> Image:
    """From `top` at first to `bottom` at last, in heights."""
    share = np.clip((y - first) / (last - first), 0.0, 1.0)[..., None]
    faded: Image = top + (bottom - top) * share
    return faded


def _over(below: Image, above: Image, coverage: Image) -> Image:
    covered: Image = below + (above - below) * coverage[..., None]
    return covered


def _under(y: Image, line: Image | float) -> Image:
    """1 below a line, 0 above it, a soft edge of a fiftieth of the height."""
    coverage: Image = np.clip((y - line) / 0.02 + 0.5, 0.0, 1.0)
    return coverage


def _night(x: Image, y: Image, rng: np.random.Generator) -> Image:
    sky = _fade(y, _rgb(10, 12, 40), _rgb(48, 44, 88), 0.0, 0.8)
    for star_x, star_y in ((0.15, 0.12), (0.52, 0.3), (0.83, 0.1), (1.1, 0.34), (1.35, 0.14), (1.62, 0.4), (2.2, 0.2)):
        glow = np.exp(-((x - star_x) ** 2 + (y - star_y) ** 2) / 0.0005)
        sky = _over(sky, _rgb(200, 200, 220), 0.8 * glow)
    moon = np.clip((0.07 - np.hypot(x - 1.78, y - 0.2)) / 0.02 + 0.5, 0.0, 1.0)
    sky = _over(sky, _rgb(222, 216, 188), moon)
    hills = 0.84 + 0.04 * np.sin(3.1 * x + rng.uniform(0, 2 * np.pi))
    return _over(sky, _rgb(16, 20, 30), _under(y, hills))


def _sky(x: Image, y: Image, rng: np.random.Generator) -> Image:
    sky = _fade(y, _rgb(92, 146, 206), _rgb(178, 208, 232))
    shift = rng.uniform(0, 2)
    for centre, level, width in ((0.3, 0.25, 0.3), (1.1, 0.62, 0.36), (1.75, 0.3, 0.26)):
        away = (x - centre - shift) % 2.4 - 0.6
        cloud = np.exp(-((away / width) ** 2) - ((y - level) / 0.09) ** 2)
        sky = _over(sky, _rgb(214, 226, 238), 0.8 * cloud)
    return sky


def _meadow(x: Image, y: Image, rng: np.random.Generator) -> Image:
    sky = _fade(y, _rgb(150, 186, 214), _rgb(214, 222, 214), 0.0, 0.6)
    phase = rng.uniform(0, 2 * np.pi)
    far = _under(y, 0.5 + 0.05 * np.sin(2.3 * x + phase))
    near = _under(y, 0.66 + 0.04 * np.sin(3.4 * x + 2 * phase))
    land = _over(sky, _fade(y, _rgb(120, 144, 96), _rgb(104, 128, 80), 0.45, 0.7), far)
    return _over(land, _fade(y, _rgb(96, 122, 66), _rgb(66, 92, 46), 0.62, 1.0), near)


def _desert(x: Image, y: Image, rng: np.random.Generator) -> Image:
    sky = _fade(y, _rgb(206, 188, 176), _rgb(238, 218, 188), 0.0, 0.55)
    phase = rng.uniform(0, 2 * np.pi)
    far = _under(y, 0.54 + 0.04 * np.sin(2.0 * x + phase))
    near = _under(y, 0.7 + 0.07 * np.sin(2.8 * x - phase))
    land = _over(sky, _fade(y, _rgb(214, 172, 118), _rgb(196, 150, 98), 0.5, 0.8), far)
    return _over(land, _fade(y, _rgb(188, 142, 92), _rgb(152, 110, 70), 0.62, 1.0), near)


def _sea(x: Image, y: Image, rng: np.random.Generator) -> Image:
    sky = _fade(y, _rgb(160, 180, 198), _rgb(220, 218, 210), 0.0, 0.42)
    water = _fade(y, _rgb(70, 116, 138), _rgb(20, 62, 88), 0.42, 1.0)
    phase = rng.uniform(0, 2 * np.pi)
    depth = np.clip((y - 0.42) / 0.58, 0.0, 1.0)
    crests = np.sin(40 * np.sqrt(depth + 0.05) + 0.8 * np.sin(4.0 * x + phase))
    water = water + (0.045 * depth * crests)[..., None]
    return _over(sky, water, _under(y, 0.42))


_PLACES: dict[str, Draw] = {"night": _night, "sky": _sky, "meadow": _meadow, "desert": _desert, "sea": _sea}
