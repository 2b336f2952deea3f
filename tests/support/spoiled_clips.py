"""A clip of the world, and the ways in which a model may get it wrong."""

import cv2
import numpy as np
from numpy.typing import NDArray

from helios_training.world import Scene, draw_clip
from helios_training.world.backgrounds import background

Frames = NDArray[np.uint8]
SCENE = Scene("small", "red", "ball", "quickly", "right", "sky")
SEED, FRAMES, HEIGHT, WIDTH = 3, 44, 64, 128


def clip(scene: Scene = SCENE, seed: int = SEED, frames: int = FRAMES) -> Frames:
    """The real one."""
    return draw_clip(scene, seed, frames=frames, height=HEIGHT, width=WIDTH).frames


def frozen() -> Frames:
    """Nothing moves."""
    return np.repeat(clip(frames=1), FRAMES, axis=0)


def jittering() -> Frames:
    """Every second frame is two pixels off."""
    frames = clip()
    frames[::2] = np.roll(frames[::2], 2, axis=2)
    return frames


def blurring() -> Frames:
    """More and more out of focus."""
    pictures = [cv2.GaussianBlur(frame, (0, 0), 0.05 + 0.08 * number) for number, frame in enumerate(clip())]
    return np.stack(pictures).astype(np.uint8)


def fading() -> Frames:
    """Colours go."""
    frames = clip().astype(np.float32)
    share = np.linspace(1.0, 0.0, FRAMES, dtype=np.float32)[:, None, None, None]
    grey = frames.mean(axis=-1, keepdims=True)
    faded: Frames = np.round(grey + share * (frames - grey)).astype(np.uint8)
    return faded


def vanishing() -> Frames:
    """There is no object in the second half."""
    frames = clip()
    empty = background(SCENE.place, HEIGHT, WIDTH, np.random.default_rng(SEED))
    frames[FRAMES // 2 :] = np.round(empty * 255.0).astype(np.uint8)
    return frames


def starting_again() -> Frames:
    """The second chunk is the first one again."""
    frames = clip()
    frames[33:] = frames[: FRAMES - 33]
    return frames
