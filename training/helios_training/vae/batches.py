"""Batches that the VAE is trained on, drawn from the world: functions of the seed and the step, so that runs resume."""

from dataclasses import dataclass

import numpy as np
import torch

from helios_engine.request import FRAMES_PER_CHUNK
from helios_training.errors import TrainingError
from helios_training.world import all_scenes, draw_clip

MINUTE_FRAMES = 1440
CHANNELS, SCALE = 16, 8
"""Channels of the latents, and how much smaller than the pictures they are."""


@dataclass(frozen=True, kw_only=True)
class PixelDraw:
    """frames: 1, or a whole chunk. crop: height and width of windows into the picture (None: all of it)."""

    samples: int
    frames: int
    crop: int | None = None

    def __post_init__(self) -> None:
        if self.frames not in (1, FRAMES_PER_CHUNK):
            raise TrainingError(f"frames: {self.frames} is not allowed; allowed: 1 or {FRAMES_PER_CHUNK}")
        if self.crop is not None and (self.crop % SCALE or self.crop < SCALE):
            raise TrainingError(f"crop: {self.crop} is not allowed; allowed: a multiple of {SCALE} pixels")


@dataclass(frozen=True, kw_only=True)
class PixelBatch:
    """pixels: (B, 3, T, H, W) in [-1, 1]; mask: (B, 1, T, H, W), the object's; noise: twice the latents' channels."""

    pixels: torch.Tensor
    mask: torch.Tensor
    noise: torch.Tensor


def draw_batch(seed: int, step: int, draw: PixelDraw, *, height: int, width: int) -> PixelBatch:
    """A batch of the world's clips."""
    rng = np.random.default_rng((seed, step))
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    pixels, masks = [], []
    for _ in range(draw.samples):
        scene = all_scenes()[rng.integers(len(all_scenes()))]
        first, clip_seed = int(rng.integers(MINUTE_FRAMES)), int(rng.integers(2**31))
        clip = draw_clip(scene, clip_seed, frames=draw.frames, height=height, width=width, first_frame=first)
        rows, columns = slice(None), slice(None)
        if draw.crop is not None:
            top, left = _window(clip.mask.max(axis=0), draw.crop, rng)
            rows, columns = slice(top, top + draw.crop), slice(left, left + draw.crop)
        pixels.append(torch.from_numpy(clip.frames[:, rows, columns].astype(np.float32) / 127.5 - 1.0))
        masks.append(torch.from_numpy(clip.mask[:, rows, columns].copy()))
    stacked = torch.stack(pixels).permute(0, 4, 1, 2, 3).contiguous()
    size = (stacked.shape[3] // SCALE, stacked.shape[4] // SCALE)
    noise = torch.randn(draw.samples, 2 * CHANNELS, (draw.frames + 3) // 4, *size, generator=generator)
    return PixelBatch(pixels=stacked, mask=torch.stack(masks)[:, None], noise=noise)


def _window(touched: np.ndarray, crop: int, rng: np.random.Generator) -> tuple[int, int]:
    """Three in four windows hold a pixel that the object covers at some time; corners lie on the grid of latents."""
    height, width = touched.shape
    highest, most_left = (height - crop) // SCALE, (width - crop) // SCALE
    if rng.random() < 0.75:
        rows, columns = np.nonzero(touched > 0.5)
        chosen = rng.integers(len(rows))
        offset_y, offset_x = rng.integers(crop), rng.integers(crop)
        top, left = (rows[chosen] - offset_y) // SCALE, (columns[chosen] - offset_x) // SCALE
        return int(np.clip(top, 0, highest)) * SCALE, int(np.clip(left, 0, most_left)) * SCALE
    return int(rng.integers(highest + 1)) * SCALE, int(rng.integers(most_left + 1)) * SCALE
