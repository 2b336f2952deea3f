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

from helios_engine.configs import VAEConfig

IGNORED_PREFIXES = ("encoder.", "quant_conv.")
"""The encoder half of a published VAE folder."""


class CausalConv3d(nn.Conv3d):
    """3-D convolution that sees only the present and the past (zeros before the first frame)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int, int]) -> None:
        t, h, w = kernel
        super().__init__(in_channels, out_channels, kernel, padding=(0, h // 2, w // 2))
        self.past = t - 1

    def forward(self, x_BCThw: torch.Tensor) -> torch.Tensor:
        """(B, C, T, h, w) to (B, C', T, h, w)."""
        padded = F.pad(x_BCThw, (0, 0, 0, 0, self.past, 0)) if self.past else x_BCThw
        out: torch.Tensor = super().forward(padded)
        return out


class ChannelRMSNorm(nn.Module):
    """Normalises over channels: x / |x| * sqrt(C) * gamma."""

    def __init__(self, channels: int, broadcast_dims: int = 3) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *[1] * broadcast_dims))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any (B, C, ...); computed in float32, returned in x's dtype."""
        scale = len(self.gamma) ** 0.5
        normalized: torch.Tensor = F.normalize(x.float(), dim=1).type_as(x)
        scaled: torch.Tensor = normalized * scale * self.gamma
        return scaled


class ResidualBlock(nn.Module):
    """Two normalised causal convolutions around a (projected) identity."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelRMSNorm(in_channels)
        self.conv1 = CausalConv3d(in_channels, out_channels, (3, 3, 3))
        self.norm2 = ChannelRMSNorm(out_channels)
        self.conv2 = CausalConv3d(out_channels, out_channels, (3, 3, 3))
        same = in_channels == out_channels
        self.conv_shortcut = nn.Identity() if same else CausalConv3d(in_channels, out_channels, (1, 1, 1))

    def forward(self, x_BCThw: torch.Tensor) -> torch.Tensor:
        """(B, C, T, h, w) to (B, C', T, h, w)."""
        inner = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x_BCThw))))))
        out: torch.Tensor = inner.add_(self.conv_shortcut(x_BCThw))
        return out


class FrameAttention(nn.Module):
    """Single-head self-attention within each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelRMSNorm(channels, broadcast_dims=2)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BCThw: torch.Tensor) -> torch.Tensor:
        """(B, C, T, h, w) to the same."""
        frames = _frames(x_BCThw)
        qkv = self.to_qkv(self.norm(frames)).flatten(2).transpose(1, 2)[:, None]
        attended = F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1))
        out = self.proj(attended[:, 0].transpose(1, 2).unflatten(2, frames.shape[2:]))
        return x_BCThw + _video(out, len(x_BCThw))


class Upsampler(nn.Module):
    """Doubles height and width, halves channels; with `temporal`, doubles every frame but the first."""

    def __init__(self, channels: int, *, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.Identity(), nn.Conv2d(channels, channels // 2, 3, padding=1))
        self.time_conv = CausalConv3d(channels, 2 * channels, (3, 1, 1)) if temporal else None

    def forward(self, x_BCThw: torch.Tensor) -> torch.Tensor:
        """(B, C, T, h, w) to (B, C/2, T or 2T-1, 2h, 2w)."""
        if self.time_conv is not None and x_BCThw.shape[2] > 1:
            first, rest = x_BCThw[:, :, :1], x_BCThw[:, :, 1:]
            pairs = self.time_conv(rest).unflatten(1, (2, -1))  # B 2 C T-1 h w; the first frame is not seen
            x_BCThw = torch.cat([first, pairs.permute(0, 2, 3, 1, 4, 5).flatten(2, 3)], dim=2)
        frames = F.interpolate(_frames(x_BCThw), scale_factor=2.0, mode="nearest-exact")
        return _video(self.resample[1](frames), len(x_BCThw))


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


class _Middle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(channels, channels) for _ in range(2))
        self.attentions = nn.ModuleList([FrameAttention(channels)])

    def forward(self, x_BCThw: torch.Tensor) -> torch.Tensor:
        first, second = self.resnets
        out: torch.Tensor = second(self.attentions[0](first(x_BCThw)))
        return out


class _Layers(nn.Module):
    """The decoder's layers under their published names."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        base = config.decoder_base_dim or config.base_dim
        widths = [base * mult for mult in reversed(config.dim_mult)]
        temporal = [*reversed(config.temperal_downsample), None]
        self.conv_in = CausalConv3d(config.z_dim, widths[0], (3, 3, 3))
        self.mid_block = _Middle(widths[0])
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
            torch.tensor(values, dtype=dtype, device=latents_BCThw.device).view(1, -1, 1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )
        x = layers.mid_block(layers.conv_in(self.post_quant_conv(latents_BCThw.to(dtype) * std + mean)))
        for stage in layers.up_blocks:
            x = stage(x)
        pixels: torch.Tensor = layers.conv_out(F.silu(layers.norm_out(x)))
        return pixels.clamp_(-1.0, 1.0)


class VideoDecoder:
    """Decodes one chunk of latents into frames. Chunks are independent of each other."""

    def __init__(self, model: WanDecoder) -> None:
        self.model = model.eval().requires_grad_(False)

    @classmethod
    def from_pretrained(
        cls, path: str | PathLike[str], *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> "VideoDecoder":
        """Loads `vae/` of a published checkpoint folder (its decoder half). Raises CheckpointError."""
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
        pixels = self.model(latents.to(self.model.post_quant_conv.weight.device))[0].float()
        frames = pixels.add_(1.0).mul_(127.5).round_().to(torch.uint8)
        result: NDArray[np.uint8] = frames.permute(1, 2, 3, 0).contiguous().cpu().numpy()
        return result


def _frames(x_BCThw: torch.Tensor) -> torch.Tensor:
    return x_BCThw.transpose(1, 2).flatten(0, 1)


def _video(frames: torch.Tensor, batch: int) -> torch.Tensor:
    video: torch.Tensor = frames.unflatten(0, (batch, -1))
    return video.transpose(1, 2)
