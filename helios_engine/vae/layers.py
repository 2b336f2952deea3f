"""Layers that the Wan VAE's encoder and decoder share.

Legend: B batch, C channels, T frames, h/w height and width. Source: `AutoencoderKLWan` (diffusers, Wan 2.1).
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn

from helios_engine.ops import onednn
from helios_engine.vae.slices import Carry, Footprint
from helios_kernels.backend import use_triton
from helios_kernels.channel_norm import channel_norm


class CausalConv3d(nn.Conv3d):
    """3-D convolution that sees only the present and the past (zeros before the first frame)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int, int]) -> None:
        t, h, w = kernel
        super().__init__(in_channels, out_channels, kernel, padding=(0, h // 2, w // 2))
        self.past = t - 1

    def forward(self, x_BCThw: torch.Tensor, carry: Carry | None = None) -> torch.Tensor:
        """(B, C, T, h, w) to (B, C', T, h, w). carry: x is a slice of a video, after those seen before."""
        front = self.frames_in_front(x_BCThw, carry)
        return self.convolve(F.pad(x_BCThw, (0, 0, 0, 0, front, 0)) if front else x_BCThw, front, carry)

    def frames_in_front(self, x_BCThw: torch.Tensor, carry: Carry | None) -> int:
        """How many zero frames `convolve` needs before x: `past`, or none where it can do without them."""
        return 0 if carry is None and onednn.usable(x_BCThw) else self.past

    def convolve(self, x_BCThw: torch.Tensor, front: int, carry: Carry | None) -> torch.Tensor:
        """The same as `forward`, for an input with `frames_in_front` zero frames in front, which it may overwrite."""
        if front and carry is not None:
            if self in carry:
                x_BCThw[:, :, :front] = carry.pop(self)
            carry[self] = x_BCThw[:, :, -front:].clone()
        if not onednn.usable(x_BCThw):
            out: torch.Tensor = super().forward(x_BCThw)
            return out
        padding = [self.weight.shape[-2] // 2, self.weight.shape[-1] // 2]
        videos = [
            onednn.convolve_over_time(as_frames(video), self.weight, self.bias, padding, front)
            for video in x_BCThw.to(memory_format=torch.channels_last_3d).split(1)
        ]
        return torch.cat([as_video(frames, 1) for frames in videos]) if len(videos) > 1 else as_video(videos[0], 1)


class ChannelRMSNorm(nn.Module):
    """Normalises over channels: x / |x| * sqrt(C) * gamma."""

    def __init__(self, channels: int, broadcast_dims: int = 3) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *[1] * broadcast_dims))

    def forward(self, x_BCThw: torch.Tensor) -> torch.Tensor:
        """(B, C, T, h, w) to the same; computed in float32, returned in x's dtype."""
        return channel_norm(x_BCThw, self.gamma, silu=False)


def norm_silu_convolve(
    x_BCThw: torch.Tensor,
    norm: ChannelRMSNorm,
    convolution: CausalConv3d,
    carry: Carry | None = None,
    *,
    reuse: bool = False,
) -> torch.Tensor:
    """convolution(silu(norm(x))): (B, C, T, h, w) to (B, C', T, h, w).

    reuse: x may be written over. The norm writes the zero frames that the convolution needs in front, if any.
    """
    front = convolution.frames_in_front(x_BCThw, carry)
    normed = channel_norm(x_BCThw, norm.gamma, silu=True, past=front, reuse=reuse)
    return convolution.convolve(normed, front, carry)


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

    @property
    def footprint(self) -> Footprint:
        """The peak is at the second convolution: block's input, first convolution's output, that normalised, result."""
        into, out = self.conv1.in_channels, self.conv1.out_channels
        past = self.conv2.past
        return Footprint(frame=into + 3 * out, slice=past * out, carried=past * (into + out), largest=max(into, out))

    def forward(self, x_BCThw: torch.Tensor, carry: Carry | None = None) -> torch.Tensor:
        """(B, C, T, h, w) to (B, C', T, h, w)."""
        inner = norm_silu_convolve(x_BCThw, self.norm1, self.conv1, carry)
        inner = norm_silu_convolve(inner, self.norm2, self.conv2, carry, reuse=True)
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
        frames = as_frames(self.norm(x_BCThw))
        qkv = self.to_qkv(frames).flatten(2).transpose(1, 2)[:, None]
        attended = F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1))
        out = self.proj(attended[:, 0].transpose(1, 2).unflatten(2, frames.shape[2:]))
        return x_BCThw + as_video(out, len(x_BCThw))


class Middle(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(channels, channels) for _ in range(2))
        self.attentions = nn.ModuleList([FrameAttention(channels)])

    @property
    def footprint(self) -> Footprint:
        """The peak is in the attention: input, that normalised, queries, keys, values, attended values, result."""
        block = self.resnets[0]
        assert isinstance(block, ResidualBlock)
        channels, one = block.conv1.in_channels, block.footprint
        return Footprint(frame=7 * channels, slice=one.slice, carried=2 * one.carried, largest=3 * channels)

    def forward(self, x_BCThw: torch.Tensor, carry: Carry | None = None) -> torch.Tensor:
        """(B, C, T, h, w) to the same."""
        first, second = self.resnets
        out: torch.Tensor = second(self.attentions[0](first(x_BCThw, carry)), carry)
        return out


def as_frames(x_BCThw: torch.Tensor) -> torch.Tensor:
    """(B, C, T, h, w) to (B * T, C, h, w)."""
    return x_BCThw.transpose(1, 2).flatten(0, 1)


def as_video(frames: torch.Tensor, batch: int) -> torch.Tensor:
    """(B * T, C, h, w) to (B, C, T, h, w)."""
    video: torch.Tensor = frames.unflatten(0, (batch, -1))
    return video.transpose(1, 2)


def channels_last(x: torch.Tensor) -> bool:
    """Whether the VAE keeps tensors like x with channels last, the layout in which tensor cores take every dtype.

    float32 on a CPU is kept as it is: oneDNN lays it out by itself.
    """
    return x.is_cuda or x.dtype != torch.float32 or use_triton(x)


def laid_out(x_BCThw: torch.Tensor) -> torch.Tensor:
    """x in the memory layout in which the VAE's layers are fastest."""
    return x_BCThw.contiguous(memory_format=torch.channels_last_3d) if channels_last(x_BCThw) else x_BCThw


def channels_last_(module: nn.Module) -> None:
    """Lays the convolutions' weights out with channels last."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            layer.weight.data = layer.weight.data.contiguous(memory_format=formats[layer.weight.dim()])


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def per_channel(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The values as (1, C, 1, 1, 1). Each tensor is made once, for a copy to a GPU makes the host wait."""
    return torch.tensor(values, dtype=dtype, device=device).view(1, -1, 1, 1, 1)
