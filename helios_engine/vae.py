"""Wan VAE decoder, a whole chunk at once.

Legend: B batch, C channels, T frames, h/w height and width. Source: `AutoencoderKLWan` (diffusers, Wan 2.1). The
reference feeds one latent frame at a time through a feature cache; a causal convolution over the whole chunk is the
same function.
"""

from itertools import pairwise
from os import PathLike

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from helios_engine import onednn
from helios_engine.configs import VAEConfig
from helios_engine.vae_layers import (
    CausalConv3d,
    ChannelRMSNorm,
    Middle,
    ResidualBlock,
    as_frames,
    as_video,
    channels_last_,
    norm_silu_convolve,
    per_channel,
)
from helios_kernels.backend import use_triton
from helios_kernels.rgb import rgb_frames

IGNORED_PREFIXES = ("encoder.", "quant_conv.")
"""The encoder half of a published VAE folder."""


class Upsampler(nn.Module):
    """Doubles height and width, halves channels; with `temporal`, doubles every frame but the first."""

    def __init__(self, channels: int, *, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleList([nn.Identity(), nn.Conv2d(channels, channels // 2, 3, padding=1)])
        self.time_conv = CausalConv3d(channels, 2 * channels, (3, 1, 1)) if temporal else None

    def forward(self, x_BCThw: torch.Tensor) -> torch.Tensor:
        """(B, C, T, h, w) to (B, C/2, T or 2T-1, 2h, 2w)."""
        if self.time_conv is not None and x_BCThw.shape[2] > 1:
            first, rest = x_BCThw[:, :, :1], x_BCThw[:, :, 1:]
            pairs = self.time_conv(rest).unflatten(1, (2, -1))  # B 2 C T-1 h w; the first frame is not seen
            x_BCThw = torch.cat([first, pairs.permute(0, 2, 3, 1, 4, 5).flatten(2, 3)], dim=2)
        frames, convolution = as_frames(x_BCThw), self.resample[1]
        assert isinstance(convolution, nn.Conv2d)
        if onednn.usable(frames):
            up = F.conv_transpose2d(frames, doubling(convolution.weight), convolution.bias, stride=2, padding=1)
        else:
            up = convolution(F.interpolate(frames, scale_factor=2.0, mode="nearest-exact"))
        return as_video(up, len(x_BCThw))


def doubling(weight: torch.Tensor) -> torch.Tensor:
    """Nearest-neighbour x2 and then a 3x3 convolution, as one transposed 4x4 convolution of stride 2: 4 / 9 the work.

    Each output pixel sees 2x2 inputs only, through sums of the 3x3 weights. (C', C, 3, 3) to (C, C', 4, 4).
    """
    spread = F.conv2d(weight.flip(2, 3).reshape(-1, 1, 3, 3), weight.new_ones(1, 1, 2, 2), padding=1)
    transposed = spread.view(*weight.shape[:2], 4, 4).transpose(0, 1)
    return transposed.contiguous(memory_format=torch.channels_last)


class _Stage(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, blocks: int, upsampler: Upsampler | None) -> None:
        super().__init__()
        sizes = [in_channels, *[out_channels] * blocks]
        self.resnets = nn.ModuleList(ResidualBlock(a, b) for a, b in pairwise(sizes))
        self.upsamplers = nn.ModuleList([upsampler] if upsampler is not None else [])

    def forward(self, x_BCThw: torch.Tensor) -> torch.Tensor:
        for layer in (*self.resnets, *self.upsamplers):
            x_BCThw = layer(x_BCThw)
        return x_BCThw


class _Layers(nn.Module):
    """The decoder's layers under their published names."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        base = config.decoder_base_dim or config.base_dim
        widths = [base * mult for mult in reversed(config.dim_mult)]
        temporal = [*reversed(config.temperal_downsample), None]
        self.conv_in = CausalConv3d(config.z_dim, widths[0], (3, 3, 3))
        self.mid_block = Middle(widths[0])
        self.up_blocks = nn.ModuleList()
        incoming = widths[0]
        for width, doubles_time in zip(widths, temporal, strict=True):
            upsampler = None if doubles_time is None else Upsampler(width, temporal=doubles_time)
            self.up_blocks.append(_Stage(incoming, width, config.num_res_blocks + 1, upsampler))
            incoming = width // 2  # the upsampler halves the channels
        self.norm_out = ChannelRMSNorm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], config.out_channels, (3, 3, 3))


class WanDecoder(nn.Module):
    """Normalised latents to pixels in [-1, 1]. Parameters carry the published names."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.post_quant_conv = CausalConv3d(config.z_dim, config.z_dim, (1, 1, 1))
        self.decoder = _Layers(config)

    def forward(self, latents_BCThw: torch.Tensor) -> torch.Tensor:
        """(B, 16, T, H/8, W/8) to (B, 3, 4T-3, H, W)."""
        config, layers, dtype = self.config, self.decoder, self.post_quant_conv.weight.dtype
        mean, std = (
            per_channel(tuple(values), dtype, latents_BCThw.device)
            for values in (config.latents_mean, config.latents_std)
        )
        latents_BCThw = latents_BCThw.to(dtype) * std + mean
        if dtype != torch.float32:
            latents_BCThw = latents_BCThw.contiguous(memory_format=torch.channels_last_3d)
        x = layers.mid_block(layers.conv_in(self.post_quant_conv(latents_BCThw)))
        for stage in layers.up_blocks:
            x = stage(x)
        pixels: torch.Tensor = norm_silu_convolve(x, layers.norm_out, layers.conv_out, reuse=True)
        return pixels.clamp_(-1.0, 1.0)


class VideoDecoder:
    """Decodes one chunk of latents into frames. Chunks are independent of each other."""

    def __init__(self, model: WanDecoder) -> None:
        self.model = model.eval().requires_grad_(False)
        if model.post_quant_conv.weight.dtype != torch.float32:
            channels_last_(model)

    @classmethod
    def from_pretrained(
        cls, path: str | PathLike[str], *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> "VideoDecoder":
        """Loads `vae/` of a published checkpoint folder (its decoder half). Raises CheckpointError.

        dtype: bfloat16 runs with channels last; what it costs is measured by benchmarks/vae_precision.py.
        """
        from helios_engine.checkpoint import load_weights, open_checkpoint

        checkpoint = open_checkpoint(path)
        with torch.device("meta"):
            model = WanDecoder(checkpoint.vae)
        expected = {name: parameter.shape for name, parameter in model.named_parameters()}
        weights = load_weights(
            checkpoint.root / "vae",
            expected,
            device=device,
            dtype_of=lambda _: dtype,
            ignored_prefixes=IGNORED_PREFIXES,
        )
        model.load_state_dict(weights, assign=True)
        return cls(model)

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> NDArray[np.uint8]:
        """Normalised latents (1, 16, 9, H/8, W/8) to frames (33, H, W, 3) uint8."""
        pixels = self.model(latents.to(self.model.post_quant_conv.weight.device))[0]
        if use_triton(pixels):
            frames = rgb_frames(pixels)
        else:
            levels = pixels.float().add_(1.0).mul_(127.5).round_().to(torch.uint8)
            frames = levels.permute(1, 2, 3, 0).contiguous()
        result: NDArray[np.uint8] = frames.cpu().numpy()
        return result
