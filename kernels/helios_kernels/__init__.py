"""Fused GPU kernels of the Helios engine, for inference (no gradients).

One file per kernel: its formula, the Triton launcher (`*_triton`), the same in plain torch (`*_ref`) and the function
to call, which takes the launcher for CUDA tensors and the reference elsewhere. `HELIOS_KERNELS=reference` in the
environment forces the reference everywhere. Arithmetic is float32 inside, rounded once to the output's dtype.
Importing this package works without Triton; then there are only the references.
"""

from helios_kernels.channel_norm import channel_norm
from helios_kernels.gated_residual import (
    add_gated,
    add_gated_affine_norm,
    add_gated_modulated_norm,
    add_noisy_modulated_norm,
)
from helios_kernels.modulated_norm import affine_norm, modulated_norm
from helios_kernels.norm_rotate import norm_rotate, norm_rotate_qkv
from helios_kernels.renoise import renoise
from helios_kernels.rgb import rgb_frames
from helios_kernels.rms_norm import rms_norm
from helios_kernels.upsample import upsample_renoise
from helios_kernels.yuv420 import yuv420_frames

__all__ = [
    "add_gated",
    "add_gated_affine_norm",
    "add_gated_modulated_norm",
    "add_noisy_modulated_norm",
    "affine_norm",
    "channel_norm",
    "modulated_norm",
    "norm_rotate",
    "norm_rotate_qkv",
    "renoise",
    "rgb_frames",
    "rms_norm",
    "upsample_renoise",
    "yuv420_frames",
]
