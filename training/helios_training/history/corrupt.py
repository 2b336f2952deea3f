"""Frame-Aware Corrupt: the history that a model is trained on is spoilt as its own output will be.

Legend: B batch, C channels, T latent frames (anchor first where there is one), h/w latent height and width.
All-zero frames, which stand for a past that is not there, are left alone.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

CLEAN_SHARE = 0.1
"""The share of batches whose history stays clean."""
BLUR_SHARE = 0.1
"""The share of corrupted batches that are blurred; the others get noise."""
LARGEST_SIGMA = 1 / 3
SMALLEST_SCALE = 0.9
SATURATED_SHARE = 0.9
SATURATION_BLOCKS = (1, 9, 2, 7)
"""Latent frames of the history, oldest first, that share a factor."""
FADED, VIVID = (0.3, 1.0), (1.0, 1.7)


@dataclass(frozen=True, kw_only=True)
class Past:
    """history: (B, C, 19, h, w); anchor: (B, C, 1, h, w)."""

    history: torch.Tensor
    anchor: torch.Tensor


def corrupt(past: Past, generator: torch.Generator, *, saturation: bool = False) -> Past:
    """The past as a batch sees it: one in ten clean, one in ten of the others blurred, the rest noised.

    saturation: shift it besides (stage 3, the student's copy), independently of the others.
    """
    if saturation and _uniform(generator, 0, 1) < SATURATED_SHARE:
        past = Past(history=shift_saturation(past.history, generator), anchor=past.anchor)
    if _uniform(generator, 0, 1) < CLEAN_SHARE:
        return past
    frames = torch.cat([past.anchor, past.history], dim=2)
    spoilt = blur(frames, generator) if _uniform(generator, 0, 1) < BLUR_SHARE else add_noise(frames, generator)
    return Past(history=spoilt[:, :, 1:], anchor=spoilt[:, :, :1])


def add_noise(x_BCThw: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """x <- s e + (1 - s) x, s ~ U(0, 1/3) for each frame of each sample."""
    batch, _, frames, _, _ = x_BCThw.shape
    sigma = torch.rand(batch, 1, frames, 1, 1, generator=generator) * LARGEST_SIGMA
    noise = torch.randn(x_BCThw.shape, generator=generator)
    return _where_present(x_BCThw, torch.lerp(x_BCThw, noise.to(x_BCThw), sigma.to(x_BCThw)))


def blur(x_BCThw: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Every frame made smaller by a factor from U(0.9, 1), and back."""
    scale = _uniform(generator, SMALLEST_SCALE, 1.0)
    batch, _, _, height, width = x_BCThw.shape
    frames = x_BCThw.transpose(1, 2).flatten(0, 1)
    size = (max(round(height * scale), 1), max(round(width * scale), 1))
    small = F.interpolate(frames, size=size, mode="bilinear", antialias=True)
    back = F.interpolate(small, size=(height, width), mode="bilinear")
    return _where_present(x_BCThw, back.unflatten(0, (batch, -1)).transpose(1, 2))


def shift_saturation(history_BCThw: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """x <- m + f (x - m), m the mean over channels, f from U(0.3, 1) or U(1, 1.7), one for each block of frames."""
    if history_BCThw.shape[2] != sum(SATURATION_BLOCKS):
        raise ValueError(f"history: {history_BCThw.shape[2]} frames; allowed: {sum(SATURATION_BLOCKS)}, no anchor")
    factors = []
    for frames in SATURATION_BLOCKS:
        low, high = FADED if _uniform(generator, 0, 1) < 0.5 else VIVID
        factors += [_uniform(generator, low, high)] * frames
    mean = history_BCThw.mean(dim=1, keepdim=True)
    factor_T11 = torch.tensor(factors).to(history_BCThw)[:, None, None]
    return _where_present(history_BCThw, mean + factor_T11 * (history_BCThw - mean))


def _where_present(x_BCThw: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
    present = x_BCThw.ne(0).any(dim=(1, 3, 4), keepdim=True) if x_BCThw.numel() else x_BCThw.bool()
    return torch.where(present, changed, x_BCThw)


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))
