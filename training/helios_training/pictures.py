"""Strips of frames as PNG files, to look at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

SHOWN = 6


def save_strip(file: Path, rows: Sequence[torch.Tensor | NDArray[np.uint8]], shown: int = SHOWN, zoom: int = 2) -> None:
    """One row for each video, `shown` of its frames from the first to the last.

    rows: pixels in [-1, 1], (3, T, H, W), or frames, (T, H, W, 3) uint8.
    """
    strips = []
    for row in rows:
        frames = to_frames(row) if isinstance(row, torch.Tensor) else row
        chosen = np.linspace(0, len(frames) - 1, shown).round().astype(int)
        strips.append(np.concatenate(list(frames[chosen]), axis=1))
    picture = Image.fromarray(np.concatenate(strips, axis=0))
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST).save(file)


def to_frames(pixels: torch.Tensor) -> NDArray[np.uint8]:
    """Pixels in [-1, 1], (3, T, H, W), to frames (T, H, W, 3) uint8."""
    levels = (pixels.detach().float().clamp(-1.0, 1.0) + 1.0) * 127.5
    frames: NDArray[np.uint8] = levels.round().to(torch.uint8).permute(1, 2, 3, 0).numpy()
    return frames
