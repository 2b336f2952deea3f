"""Wan VAE decoder, a whole chunk at once.

Legend: B batch, C channels, T frames, h/w height and width. Source: `AutoencoderKLWan` (diffusers, Wan 2.1). The
reference feeds one latent frame at a time through a feature cache; a causal convolution over the whole chunk is the
same function.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from helios_engine.configs import VAEConfig
from helios_engine.ops import onednn
from helios_engine.ops.transfer import to_host
from helios_engine.vae.layers import (
    CausalConv3d,
    ChannelRMSNorm,
    Middle,
    ResidualBlock,
    as_frames,
    as_video,
    channels_last,
    channels_last_,
    laid_out,
    norm_silu_convolve,
    per_channel,
)
from helios_engine.vae.slices import ACTIVATION_BUDGET_BYTES, Carry, Footprint, even_parts, longest_slice
from helios_kernels.backend import use_triton
from helios_kernels.rgb import rgb_frames
from helios_kernels.yuv420 import yuv420_frames


class Upsampler(nn.Module):
    """Doubles height and width, halves channels; with `temporal`, doubles every frame but the first."""

    def __init__(self, channels: int, *, temporal: bool) -> None:
        super().__init__()
        self.in_channels = channels
        self.resample = nn.ModuleList([nn.Identity(), nn.Conv2d(channels, channels // 2, 3, padding=1)])
        self.time_conv = CausalConv3d(channels, 2 * channels, (3, 1, 1)) if temporal else None

    @property
    def footprint(self) -> Footprint:
        """While it is enlarged: the input, the doubled frames, those enlarged, and the result of half the channels."""
        channels = self.in_channels
        if self.time_conv is None:
            return Footprint(frame=7 * channels, largest=4 * channels)
        past = self.time_conv.past * channels
        return Footprint(frame=15 * channels, slice=past, carried=past, largest=8 * channels)

    def forward(self, x_BCThw: torch.Tensor, carry: Carry | None = None) -> torch.Tensor:
        """(B, C, T, h, w) to (B, C/2, T or 2T-1, 2h, 2w); in slices, every one but the first to 2T frames."""
        if self.time_conv is not None:
            x_BCThw = self._double_time(self.time_conv, x_BCThw, carry)
        return as_video(self._double_size(as_frames(x_BCThw)), len(x_BCThw))

    def _double_time(self, time_conv: CausalConv3d, x_BCThw: torch.Tensor, carry: Carry | None) -> torch.Tensor:
        opening = int(carry is None or self not in carry)  # the video's first frame: stays one, and nothing sees it
        if carry is not None:
            carry[self] = x_BCThw.new_empty(0)
        batch, channels, frames, height, width = x_BCThw.shape
        if frames == opening:
            return x_BCThw
        pairs = time_conv(x_BCThw[:, :, opening:], carry).unflatten(1, (2, -1))  # B 2 C T h w
        doubled = torch.empty(
            (batch, channels, 2 * frames - opening, height, width),
            dtype=pairs.dtype,
            device=pairs.device,
            memory_format=torch.channels_last_3d if pairs.stride(2) == 1 else torch.contiguous_format,
        )
        doubled[:, :, :opening] = x_BCThw[:, :, :opening]
        doubled[:, :, opening::2], doubled[:, :, opening + 1 :: 2] = pairs.unbind(1)
        return doubled

    def _double_size(self, frames: torch.Tensor) -> torch.Tensor:
        convolution = self.resample[1]
        assert isinstance(convolution, nn.Conv2d)
        if onednn.usable(frames):
            return F.conv_transpose2d(frames, doubling(convolution.weight), convolution.bias, stride=2, padding=1)
        enlarged: torch.Tensor = convolution(F.interpolate(frames, scale_factor=2.0, mode="nearest-exact"))
        return enlarged


def doubling(weight: torch.Tensor) -> torch.Tensor:
    """Nearest-neighbour x2 and then a 3x3 convolution, as one transposed 4x4 convolution of stride 2: 4 / 9 the work.

    Each output pixel sees 2x2 inputs only, through sums of the 3x3 weights. (C', C, 3, 3) to (C, C', 4, 4).
    """
    spread = F.conv2d(weight.flip(2, 3).reshape(-1, 1, 3, 3), weight.new_ones(1, 1, 2, 2), padding=1)
    transposed = spread.view(*weight.shape[:2], 4, 4).transpose(0, 1)
    return transposed.contiguous(memory_format=torch.channels_last)


class _UpBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, blocks: int, upsampler: Upsampler | None) -> None:
        super().__init__()
        sizes = [in_channels, *[out_channels] * blocks]
        self.resnets = nn.ModuleList(ResidualBlock(a, b) for a, b in pairwise(sizes))
        self.upsamplers = nn.ModuleList([upsampler] if upsampler is not None else [])


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
            self.up_blocks.append(_UpBlock(incoming, width, config.num_res_blocks + 1, upsampler))
            incoming = width // 2  # the upsampler halves the channels
        self.norm_out = ChannelRMSNorm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], config.out_channels, (3, 3, 3))

    def up(self) -> Iterator[ResidualBlock | Upsampler]:
        """The layers of all blocks in turn."""
        for block in self.up_blocks:
            assert isinstance(block, _UpBlock)
            for layer in (*block.resnets, *block.upsamplers):
                assert isinstance(layer, ResidualBlock | Upsampler)
                yield layer


class WanDecoder(nn.Module):
    """Normalised latents to pixels, from -1 to 1. Parameters carry the published names.

    Pixels that go too far are not clamped here: beyond the range there would be no gradient. Frames are.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.post_quant_conv = CausalConv3d(config.z_dim, config.z_dim, (1, 1, 1))
        self.decoder = _Layers(config)

    def forward(self, latents_BCThw: torch.Tensor, carry: Carry | None = None) -> torch.Tensor:
        """(B, 16, T, H/8, W/8) to (B, 3, 4T-3, H, W); with `carry`, a slice: every one but the first to 4T frames."""
        config, layers, dtype = self.config, self.decoder, self.post_quant_conv.weight.dtype
        mean, std = (
            per_channel(tuple(values), dtype, latents_BCThw.device)
            for values in (config.latents_mean, config.latents_std)
        )
        x = laid_out(latents_BCThw.to(dtype) * std + mean)
        x = layers.mid_block(layers.conv_in(self.post_quant_conv(x), carry), carry)
        for layer in layers.up():  # one at a time: nothing else then holds a layer's input
            x = layer(x, carry)
        pixels: torch.Tensor = norm_silu_convolve(x, layers.norm_out, layers.conv_out, carry, reuse=True)
        return pixels

    def footprints(self) -> Iterator[Footprint]:
        """What each layer holds, in elements for each latent frame and pixel."""
        layers, frames, pixels = self.decoder, 1, 1
        yield layers.mid_block.footprint
        for layer in layers.up():
            yield layer.footprint.at(frames, pixels)
            if isinstance(layer, Upsampler):
                frames, pixels = frames * (2 if layer.time_conv is not None else 1), pixels * 4
        last = layers.conv_out
        past = last.past * last.in_channels
        yield Footprint(
            frame=2 * last.in_channels + last.out_channels, slice=past, carried=past, largest=last.in_channels
        ).at(frames, pixels)


class VAEDecoder:
    """The VAE decoder: one chunk of latents becomes frames. Chunks are independent of each other.

    activation_budget_bytes: a chunk whose activations would take more is decoded in temporal slices of at least one
    latent frame. None: no budget.
    """

    def __init__(self, model: WanDecoder, *, activation_budget_bytes: int | None = ACTIVATION_BUDGET_BYTES) -> None:
        self.model = model.eval().requires_grad_(False)
        self.activation_budget_bytes = activation_budget_bytes
        if channels_last(model.post_quant_conv.weight):
            channels_last_(model)

    def decode(self, latents: torch.Tensor) -> NDArray[np.uint8]:
        """Normalised latents (1, 16, 9, H/8, W/8) to frames (33, H, W, 3) uint8."""
        return self._decode(latents, rgb_frames)

    def decode_for_video(self, latents: torch.Tensor) -> NDArray[np.uint8]:
        """Frames for the video encoder: on a GPU planes of YUV 4:2:0, (33, 3H/2, W) uint8, else the same as `decode`.

        The planes have half the bytes. On a CPU the video encoder's own conversion is faster.
        """
        return self._decode(latents, video_planes)

    @torch.inference_mode()
    def _decode(self, latents: torch.Tensor, frames_of: Callable[[torch.Tensor], torch.Tensor]) -> NDArray[np.uint8]:
        """frames_of: pixels (3, T, H, W) to uint8, T first; clamps them to -1 to 1."""
        latents = latents.to(self.model.post_quant_conv.weight.device)
        longest = self.longest_slice(*latents.shape[2:])
        parts = even_parts(latents.shape[2], longest)
        carry: Carry | None = {} if len(parts) > 1 else None
        frames = [frames_of(self.model(part, carry)[0]) for part in latents.split(parts, dim=2)]
        result: NDArray[np.uint8] = to_host(torch.cat(frames) if len(frames) > 1 else frames[0]).numpy()
        return result

    def longest_slice(self, frames: int, height: int, width: int) -> int:
        """How many latent frames of a chunk are decoded at a time. frames, height, width: the latents' size."""
        itemsize = self.model.post_quant_conv.weight.element_size()
        return longest_slice(self.model.footprints(), frames, height * width, itemsize, self.activation_budget_bytes)


def video_planes(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels in [-1, 1], (3, T, H, W), to planes (T, 3H/2, W) uint8 on a GPU, to frames (T, H, W, 3) elsewhere."""
    return yuv420_frames(pixels) if use_triton(pixels) else rgb_frames(pixels)
