"""Wan VAE encoder, a whole clip at once: what an image or a clip conditions a video with.

Legend as in vae_layers.py. Source: `AutoencoderKLWan` (diffusers, Wan 2.1), which feeds four frames at a time through a
feature cache; causal convolutions over the whole clip are the same function.
"""

from os import PathLike

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from helios_engine.conditioning import Condition, ImageCondition, Posterior, VideoCondition
from helios_engine.configs import VAEConfig
from helios_engine.request import FRAMES_PER_CHUNK, LATENT_FRAMES_PER_CHUNK
from helios_engine.transformer import HISTORY_FRAMES
from helios_engine.vae_layers import (
    CausalConv3d,
    ChannelRMSNorm,
    Middle,
    ResidualBlock,
    as_frames,
    as_video,
    norm_silu_convolve,
    per_channel,
)

IGNORED_PREFIXES = ("decoder.", "post_quant_conv.")
"""The decoder half of a published VAE folder."""
HISTORY_CHUNKS = -(-(sum(HISTORY_FRAMES) + 1) // LATENT_FRAMES_PER_CHUNK)
"""Chunks of a clip that the history can reach back to; earlier ones are not encoded."""


class Downsampler(nn.Module):
    """Halves height and width; with `temporal`, merges every two frames but the first into one."""

    def __init__(self, channels: int, *, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))
        self.time_conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1)) if temporal else None

    def forward(self, x_BCThw: torch.Tensor) -> torch.Tensor:
        """(B, C, T, h, w) to (B, C, T or (T+1)/2, h/2, w/2)."""
        x_BCThw = as_video(self.resample(as_frames(x_BCThw)), len(x_BCThw))
        if self.time_conv is None or x_BCThw.shape[2] == 1:
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

    def forward(self, pixels_BCThw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, 4T-3, H, W) to mean and standard deviation, (B, 16, T, H/8, W/8) each."""
        layers = self.encoder
        x = layers.conv_in(pixels_BCThw)
        for layer in layers.down_blocks:
            x = layer(x)
        moments = self.quant_conv(norm_silu_convolve(layers.mid_block(x), layers.norm_out, layers.conv_out, reuse=True))
        mean, log_variance = moments.chunk(2, dim=1)
        shift, scale = (
            per_channel(tuple(values), x.dtype, x.device)
            for values in (self.config.latents_mean, self.config.latents_std)
        )
        return (mean - shift) / scale, torch.exp(0.5 * log_variance.clamp(-30.0, 20.0)) / scale


class VideoEncoder:
    """Encodes what a request is conditioned on."""

    def __init__(self, model: WanEncoder) -> None:
        self.model = model.eval().requires_grad_(False)

    @classmethod
    def from_pretrained(
        cls, path: str | PathLike[str], *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> "VideoEncoder":
        """Loads `vae/` of a published checkpoint folder (its encoder half). Raises CheckpointError."""
        from helios_engine.checkpoint import load_weights, open_checkpoint

        checkpoint = open_checkpoint(path)
        with torch.device("meta"):
            model = WanEncoder(checkpoint.vae)
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

    def condition_on_image(self, image: NDArray[np.uint8]) -> Condition:
        """image: (H, W, 3) uint8, H and W as requested."""
        held = self._encode(np.broadcast_to(image, (FRAMES_PER_CHUNK, *image.shape)))
        last = Posterior(mean=held.mean[:, :, -1:].clone(), std=held.std[:, :, -1:].clone())
        return ImageCondition(image=self._encode(image[None]), still=last)

    def condition_on_video(
        self, first: NDArray[np.uint8], tail: NDArray[np.uint8], num_frames: int | None = None
    ) -> Condition:
        """first: (H, W, 3) uint8, the clip's first frame. tail: (T, H, W, 3) uint8, its last frames.

        num_frames: of the whole clip (default: of `tail`). Whole chunks of 33 frames count, from the end; the last
        HISTORY_CHUNKS of them must be in `tail`. Raises ValueError for a clip shorter than a chunk.
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

    @torch.inference_mode()
    def _encode(self, frames: NDArray[np.uint8]) -> Posterior:
        weight = self.model.quant_conv.weight
        pixels = torch.tensor(frames, device=weight.device).permute(3, 0, 1, 2)[None].to(weight.dtype)
        mean, std = self.model(pixels / 127.5 - 1.0)
        return Posterior(mean=mean.float().cpu(), std=std.float().cpu())
