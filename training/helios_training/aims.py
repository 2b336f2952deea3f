"""What share of a model's videos show what their captions say: the held-out scenes, measured by `world.measure`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from helios_engine.request import FRAMES_PER_CHUNK, GenerationRequest
from helios_training.small.sizes import HEIGHT, WIDTH
from helios_training.world import Scene, held_out_scenes
from helios_training.world.measure import agrees, look

FIRST_SEED = 1_000_000
"""No clip that is trained on is drawn from it."""


@dataclass(frozen=True, kw_only=True)
class Aims:
    """Shares of videos whose colour, shape, size, direction and speed are the caption's; present: mean share of frames
    that show an object at all."""

    videos: int
    colour: float
    shape: float
    size: float
    direction: float
    speed: float
    present: float


def score(videos: Iterable[tuple[Scene, NDArray[np.uint8]]]) -> Aims:
    """What the videos show, against what their scenes say; (T, H, W, 3) uint8 each. Raises ValueError for none."""
    words: list[dict[str, bool]] = []
    present: list[float] = []
    for scene, frames in videos:
        seen = look(frames)
        words.append(agrees(seen, scene))
        present.append(seen.present)
    if not words:
        raise ValueError("videos: none are given; allowed: at least one")
    shares = {name: float(np.mean([each[name] for each in words])) for name in words[0]}
    return Aims(videos=len(words), present=float(np.mean(present)), **shares)


def generated(checkpoint: Path, *, videos: int, chunks: int = 1) -> Iterator[tuple[Scene, NDArray[np.uint8]]]:
    """Videos of the first held-out scenes, by the engine with the variant's defaults, in float32."""
    import torch

    from helios_engine.pipeline import HeliosPipeline

    pipeline = HeliosPipeline.from_pretrained(checkpoint, dtype=torch.float32)
    for number, scene in enumerate(held_out_scenes()[:videos]):
        request = GenerationRequest(
            prompt=scene.caption,
            num_frames=chunks * FRAMES_PER_CHUNK,
            height=HEIGHT,
            width=WIDTH,
            seed=FIRST_SEED + number,
        )
        yield scene, np.concatenate([chunk.frames for chunk in pipeline.generate(request)])
