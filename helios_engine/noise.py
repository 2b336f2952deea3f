"""Random starts of a chunk and of its pyramid stages, drawn in the reference's order and layout.

Noise is drawn on the CPU: the same seed gives the same video on every device, and a generator's state is 5 kB of bytes.
Source: `HeliosPyramidPipeline.__call__` and `sample_block_noise` (diffusers).
"""

import torch
import torch.nn.functional as F

from helios_kernels.backend import use_triton
from helios_kernels.upsample import upsample_renoise


def chunk_noise(shape: tuple[int, ...], stages: int, generator: torch.Generator) -> torch.Tensor:
    """N(0, 1) at full size (1, C, T, h, w), halved `stages - 1` times (bilinear, kept at unit variance)."""
    noise_TChw = torch.randn(shape, generator=generator)[0].transpose(0, 1)
    for _ in range(stages - 1):
        size = (noise_TChw.shape[-2] // 2, noise_TChw.shape[-1] // 2)
        noise_TChw = F.interpolate(noise_TChw, size=size, mode="bilinear") * 2
    return noise_TChw.transpose(0, 1)[None]


def block_covariance(gamma: float) -> torch.Tensor:
    """(1 + gamma) I - gamma J over a 2x2 patch, plus 1e-8 I: singular for gamma = 1/3 without. float64."""
    return torch.eye(4, dtype=torch.float64) * (1.0 + gamma + 1e-8) - gamma


def block_noise(shape: tuple[int, ...], gamma: float, generator: torch.Generator) -> torch.Tensor:
    """Noise of `shape` (1, C, T, h, w) with covariance `block_covariance` over each 2x2 patch."""
    batch, channels, frames, height, width = shape
    factor = torch.linalg.cholesky(block_covariance(gamma)).float()
    blocks = batch * channels * frames * (height // 2) * (width // 2)
    noise: torch.Tensor = torch.randn(blocks, 4, generator=generator) @ factor.T
    noise = noise.view(batch, channels, frames, height // 2, width // 2, 2, 2)
    return noise.transpose(4, 5).reshape(shape)


def upsample(latents_BCThw: torch.Tensor, noise_BCTHW: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """A stage's start: alpha * latents, doubled in height and width (nearest neighbour), + beta * noise."""
    if use_triton(latents_BCThw):
        return upsample_renoise(latents_BCThw, noise_BCTHW, alpha, beta)
    doubled = latents_BCThw.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    return alpha * doubled + beta * noise_BCTHW
