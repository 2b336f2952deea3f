"""Draws clips: an object that moves at a constant speed and reflects at the picture's borders, for as long as asked."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from helios_training.world.backgrounds import background
from helios_training.world.scenes import COLOURS, DIAMETERS, DIRECTIONS, FPS, SPEEDS, Scene

Floats = NDArray[np.floating[Any]]
START_SHARE = 0.3
"""An object starts within this share of its way from the border that it moves away from."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """frames: (T, H, W, 3) uint8; mask: (T, H, W) float32, how much of each pixel the object covers."""

    scene: Scene
    frames: NDArray[np.uint8]
    mask: NDArray[np.float32]


def draw_clip(scene: Scene, seed: int, *, frames: int, height: int, width: int, first_frame: int = 0) -> Clip:
    """The same arguments give the same clip; clips of one scene and seed that differ in `first_frame` are one video."""
    rng = np.random.default_rng(seed)
    behind = background(scene.place, height, width, rng)
    seconds = (first_frame + np.arange(frames)) / FPS
    x, y = positions(scene, rng, seconds, width / height)
    rows = (np.arange(height, dtype=np.float32) + 0.5) / height
    columns = (np.arange(width, dtype=np.float32) + 0.5) / height
    dx = columns[None, None, :] - x.astype(np.float32)[:, None, None]
    dy = rows[None, :, None] - y.astype(np.float32)[:, None, None]
    radius = DIAMETERS[scene.size] / 2
    distance = _DISTANCES[scene.shape](dx / radius, dy / radius) * radius
    mask = np.clip(0.5 - distance * height, 0.0, 1.0).astype(np.float32)
    colour = np.array(COLOURS[scene.colour], dtype=np.float32) / 255.0
    light = shading(dx / radius, dy / radius, distance / radius)
    pixels = behind + (np.clip(colour * light[..., None], 0.0, 1.0) - behind) * mask[..., None]
    return Clip(scene=scene, frames=np.round(pixels * 255.0).astype(np.uint8), mask=mask)


def positions(scene: Scene, rng: np.random.Generator, seconds: Floats, aspect: float) -> tuple[Floats, Floats]:
    """The object's centre (x, y), in heights, at these times. aspect: the picture's width in heights."""
    margin = DIAMETERS[scene.size] / 2
    step_x, step_y = DIRECTIONS[scene.direction]
    start, across = rng.uniform(0, START_SHARE), rng.uniform(0.15, 0.85)
    travelled = SPEEDS[scene.speed] * seconds
    sizes = (aspect, 1.0)
    centre = []
    for size, step in zip(sizes, (step_x, step_y), strict=True):
        room = size - 2 * margin
        if step:
            along = reflected(start * room + travelled, room)
            centre.append(margin + (along if step > 0 else room - along))
        else:
            centre.append(np.full_like(seconds, margin + across * room))
    return centre[0], centre[1]


def reflected(way: Floats, room: float) -> Floats:
    """Where something is that has gone this way between two walls, 0 and `room`."""
    turn = np.mod(way, 2 * room)
    place: Floats = np.minimum(turn, 2 * room - turn)
    return place


def shading(dx: Floats, dy: Floats, distance: Floats) -> Floats:
    """Lighter to the upper left, darker at the rim. Offsets and distance in radii."""
    rim = np.clip(-distance / 0.25, 0.0, 1.0)
    light: Floats = (0.78 + 0.22 * rim) * (1.0 - 0.12 * np.clip(dx + dy, -1.0, 1.0))
    return light


def _ball(dx: Floats, dy: Floats) -> Floats:
    distance: Floats = np.hypot(dx, dy) - 1.0
    return distance


def _square(dx: Floats, dy: Floats) -> Floats:
    side = 0.86
    distance: Floats = np.maximum(np.abs(dx), np.abs(dy)) - side
    return distance


def _triangle(dx: Floats, dy: Floats) -> Floats:
    """Upright, its corners on the circle of radius 1.1, its centroid in the middle."""
    inner = 0.55
    slope = np.sqrt(0.75)
    distance: Floats = np.maximum(slope * np.abs(dx) - 0.5 * dy, dy) - np.float32(inner)
    return distance


def _ring(dx: Floats, dy: Floats) -> Floats:
    distance: Floats = np.abs(np.hypot(dx, dy) - 0.74) - 0.26
    return distance


_DISTANCES = {"ball": _ball, "square": _square, "triangle": _triangle, "ring": _ring}
"""Signed distances from the outline, in radii: negative inside."""
