"""Wan VAE encoder, a whole clip at once: what an image or a clip conditions a video with.

Legend as in layers.py. Source: `AutoencoderKLWan` (diffusers, Wan 2.1), which feeds four frames at a time through a
feature cache; causal convolutions over the whole clip are the same function.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from helios_engine.configs import HISTORY_FRAMES, VAEConfig
from helios_engine.request import FRAMES_PER_CHUNK, LATENT_FRAMES_PER_CHUNK
from helios_engine.vae.conditions import Condition, ImageCondition, Posterior, VideoCondition
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

HISTORY_CHUNKS = -(-(sum(HISTORY_FRAMES) + 1) // LATENT_FRAMES_PER_CHUNK)
"""Chunks of a clip that the history can reach back to; earlier ones are not encoded."""


class Downsampler(nn.Module):
    """Halves height and width; with `temporal`, merges every two frames but the first into one."""

    def __init__(self, channels: int, *, temporal: bool) -> None:
        super().__init__()
        self.channels = channels
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))
        self.time_conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1)) if temporal else None

    @property
    def footprint(self) -> Footprint:
        """What is held at the peak: input, input with an edge, and the quarter-size result before and after merging."""
        carried = self.channels if self.time_conv is not None else 0  # of a quarter of the size
        return Footprint(frame=3 * self.channels, carried=carried, largest=self.channels)

    def forward(self, x_BCThw: torch.Tensor, carry: Carry | None = None) -> torch.Tensor:
        """(B, C, T, h, w) to (B, C, T or (T+1)/2, h/2, w/2); in slices, every one but the first to T/2 frames."""
        x_BCThw = as_video(self.resample(as_frames(x_BCThw)), len(x_BCThw))
        if self.time_conv is None:
            return x_BCThw
        last = None if carry is None else carry.get(self)
        if carry is not None:
            carry[self] = x_BCThw[:, :, -1:].clone()
        if last is not None:
            merged: torch.Tensor = self.time_conv(torch.cat([last, x_BCThw], dim=2))
            return merged
        if x_BCThw.shape[2] == 1:
            return x_BCThw
        return torch.cat([x_BCThw[:, :, :1], self.time_conv(x_BCThw)], dim=2)


class _Layers(nn.Module):
    """The encoder's layers under their published names."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = [config.base_dim * mult for mult in config.dim_mult]
        self.conv_in = CausalConv3d(config.in_channels, widths[0], (3, 3, 3))
        self.down_blocks = nn.ModuleList()
        incoming = widths[0]
        for width, temporal in zip(widths, [*config.temperal_downsample, None], strict=True):
            for _ in range(config.num_res_blocks):
                self.down_blocks.append(ResidualBlock(incoming, width))
                incoming = width
            if temporal is not None:
                self.down_blocks.append(Downsampler(width, temporal=temporal))
        self.mid_block = Middle(incoming)
        self.norm_out = ChannelRMSNorm(incoming)
        self.conv_out = CausalConv3d(incoming, 2 * config.z_dim, (3, 3, 3))


class WanEncoder(nn.Module):
    """Pixels in [-1, 1] to the distribution of normalised latents. Parameters carry the published names."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _Layers(config)
        self.quant_conv = CausalConv3d(2 * config.z_dim, 2 * config.z_dim, (1, 1, 1))

    def forward(self, pixels_BCThw: torch.Tensor, carry: Carry | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, 4T-3, H, W) to mean and standard deviation, (B, 16, T, H/8, W/8) each.

        With `carry`, a slice: every one but the first is of 4T frames.
        """
        layers = self.encoder
        x = layers.conv_in(laid_out(pixels_BCThw), carry)
        for layer in layers.down_blocks:
            x = layer(x, carry)
        x = layers.mid_block(x, carry)
        moments = self.quant_conv(norm_silu_convolve(x, layers.norm_out, layers.conv_out, carry, reuse=True))
        mean, log_variance = moments.chunk(2, dim=1)
        shift, scale = (
            per_channel(tuple(values), x.dtype, x.device)
            for values in (self.config.latents_mean, self.config.latents_std)
        )
        return (mean - shift) / scale, torch.exp(0.5 * log_variance.clamp(-30.0, 20.0)) / scale

    def footprints(self) -> Iterator[Footprint]:
        """What each layer holds, in elements for each latent frame and pixel."""
        layers, config = self.encoder, self.config
        frames, pixels = config.scale_factor_temporal, config.scale_factor_spatial**2
        first = layers.conv_in
        past = first.past * first.in_channels
        frame = 2 * first.in_channels + first.out_channels
        yield Footprint(frame=frame, slice=past, carried=past, largest=first.out_channels).at(frames, pixels)
        for layer in layers.down_blocks:
            assert isinstance(layer, ResidualBlock | Downsampler)
            yield layer.footprint.at(frames, pixels)
            if isinstance(layer, Downsampler):
                frames, pixels = frames // (2 if layer.time_conv is not None else 1), pixels // 4
        yield layers.mid_block.footprint
        last = layers.conv_out
        past = last.past * last.in_channels
        yield Footprint(frame=2 * last.in_channels, slice=past, carried=past, largest=last.in_channels)


class VAEEncoder:
    """The VAE encoder: the image or clip that a request starts from becomes latents.

    activation_budget_bytes: frames whose activations would take more are encoded in temporal slices of at least one
    latent frame. None: no budget.
    """

    def __init__(self, model: WanEncoder, *, activation_budget_bytes: int | None = ACTIVATION_BUDGET_BYTES) -> None:
        self.model = model.eval().requires_grad_(False)
        self.activation_budget_bytes = activation_budget_bytes
        if channels_last(model.quant_conv.weight):
            channels_last_(model)

    def condition_on_image(self, image: NDArray[np.uint8]) -> Condition:
        """Encodes an image to animate. image: (H, W, 3) uint8, of the request's height and width."""
        held = self._encode(np.broadcast_to(image, (FRAMES_PER_CHUNK, *image.shape)))
        last = Posterior(mean=held.mean[:, :, -1:].clone(), std=held.std[:, :, -1:].clone())
        return ImageCondition(image=self._encode(image[None]), still=last)

    def condition_on_video(
        self, first: NDArray[np.uint8], tail: NDArray[np.uint8], num_frames: int | None = None
    ) -> Condition:
        """Encodes a clip to continue.

        first: (H, W, 3) uint8, the clip's first frame. tail: (T, H, W, 3) uint8, its last frames. num_frames: the whole
        clip's; None means the tail's. Whole chunks of 33 frames are counted from the end, and the last HISTORY_CHUNKS
        of them must be in `tail`. Raises ValueError for a clip shorter than a chunk.
        """
        total = len(tail) if num_frames is None else num_frames
        num_chunks = total // FRAMES_PER_CHUNK
        wanted = min(num_chunks, HISTORY_CHUNKS)
        if wanted == 0 or len(tail) < wanted * FRAMES_PER_CHUNK:
            raise ValueError(f"video: {total} frames are not allowed; allowed: at least {FRAMES_PER_CHUNK}, one chunk")
        chunks = np.split(tail[-wanted * FRAMES_PER_CHUNK :], wanted)
        return VideoCondition(
            first=self._encode(first[None]), chunks=tuple(map(self._encode, chunks)), num_chunks=num_chunks
        )

    @torch.no_grad()  # not inference mode: training reads latents
    def _encode(self, frames: NDArray[np.uint8]) -> Posterior:
        weight = self.model.quant_conv.weight
        video = torch.tensor(frames, device=weight.device).permute(3, 0, 1, 2)[None]
        latent_frames = (video.shape[2] + 3) // 4
        height, width = (size // self.model.config.scale_factor_spatial for size in video.shape[3:])
        longest = longest_slice(
            self.model.footprints(),
            latent_frames,
            height * width,
            weight.element_size(),
            self.activation_budget_bytes,
        )
        first, *others = even_parts(latent_frames, longest)
        carry: Carry | None = {} if others else None
        moments = [
            self.model(part.to(weight.dtype) / 127.5 - 1.0, carry)
            for part in video.split([4 * first - 3, *(4 * other for other in others)], dim=2)
        ]
        mean, std = (torch.cat(parts, dim=2).float().cpu() for parts in zip(*moments, strict=True))
        return Posterior(mean=mean, std=std)
