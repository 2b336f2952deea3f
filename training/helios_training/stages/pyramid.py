"""The pyramid of stages 2 and 3: resolutions 1/4, 1/2 and 1, each with a range of noise levels of its own.

Legend: k stage from the coarsest, s_k and e_k noise at its start and end, n noise, x clean latents; B batch,
C channels, T latent frames, h/w latent height and width.
Source: Helios' stage 2; pyramidal flow matching (arXiv 2410.05954).
"""

import math

import torch
import torch.nn.functional as F

from helios_engine.configs import PYRAMID_STAGES

GAMMA = 1 / 3
"""Correlation of the block noise that is added between stages."""
FIRST_SIGMA = 0.999
_THIRDS = (0.0, 0.333, 0.666)
ORIGINAL_STARTS = tuple(FIRST_SIGMA * (1.0 - third) for third in _THIRDS)
"""Noise levels at which the stages would begin without the noise of the jump."""


def _corrected(original: float) -> float:
    """What the level is once the jump has added its noise: 1 - S / (2 (1 - S) + S), S = 1 - original, for gamma 1/3."""
    signal = 1.0 - original
    return 1.0 - signal / (math.sqrt(1.0 + 1.0 / GAMMA) * (1.0 - signal) + signal)


STARTS = (1.0, _corrected(ORIGINAL_STARTS[1]), _corrected(ORIGINAL_STARTS[2]))
ENDS = (ORIGINAL_STARTS[1], ORIGINAL_STARTS[2], 0.0)
TIMESTEPS = ((999.0, 743.26), (743.26, 385.61), (385.61, 1.0))
"""First and last of each stage: in proportion to what the stages remove of the noise."""


def jump(stage: int) -> tuple[float, float]:
    """alpha and beta: x of `stage` starts as alpha * upsampled x of the stage before + beta * block noise.

    alpha = 1 / (2 - s), beta = alpha (1 - s) sqrt(3), with s = 1 - the stage's original start.
    """
    signal = 1.0 - ORIGINAL_STARTS[stage]
    alpha = 1.0 / (2.0 - signal)
    return alpha, alpha * (1.0 - signal) * math.sqrt(3.0)


def timestep(stage: int, sigma_B: torch.Tensor) -> torch.Tensor:
    """What the model is told for a local level from 1 (the stage's start) to 0 (its end)."""
    high, low = TIMESTEPS[stage]
    return low + sigma_B * (high - low)


def clean_pyramid(x_BCThw: torch.Tensor) -> list[torch.Tensor]:
    """The latents of each pyramid stage, coarse to fine: halved bilinearly twice, once, and as they are."""
    return _halvings(x_BCThw, 1.0)


def noise_pyramid(n_BCThw: torch.Tensor) -> list[torch.Tensor]:
    """The same noise at each resolution; times 2 a halving, so that its variance stays 1."""
    return _halvings(n_BCThw, 2.0)


def _halvings(x_BCThw: torch.Tensor, factor: float) -> list[torch.Tensor]:
    levels = [x_BCThw]
    for _ in range(PYRAMID_STAGES - 1):
        levels.insert(0, factor * halved(levels[0]))
    return levels


def halved(x_BCThw: torch.Tensor) -> torch.Tensor:
    """Half the height and width, bilinearly: the mean of each 2x2."""
    frames = x_BCThw.transpose(1, 2).flatten(0, 1)
    size = (frames.shape[-2] // 2, frames.shape[-1] // 2)
    small: torch.Tensor = F.interpolate(frames, size=size, mode="bilinear").unflatten(0, (len(x_BCThw), -1))
    return small.transpose(1, 2)


def doubled(x_BCThw: torch.Tensor) -> torch.Tensor:
    """Twice the height and width, nearest neighbours."""
    return x_BCThw.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)


def endpoints(x: list[torch.Tensor], n: list[torch.Tensor], stage: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Start and end of a stage's straight path, of clean and noise pyramids:

    start_k = s_k n_k + (1 - s_k) doubled(x_{k-1}), start_0 = n_0;  end_k = e_k n_k + (1 - e_k) x_k.
    """
    start = n[0] if stage == 0 else torch.lerp(doubled(x[stage - 1]), n[stage], STARTS[stage])
    return start, torch.lerp(x[stage], n[stage], ENDS[stage])
