"""Wan's autoencoder as it is trained: the engine's layers, with a forward that keeps gradients and does not clamp.

Legend: B batch, C channels, T frames, h/w height and width. A single frame sees only the last tap of a causal
convolution, which then is a 2-D one at a third of the work.
"""

import torch
import torch.nn.functional as F
from torch import nn

from helios_engine.configs import VAEConfig
from helios_engine.vae.decoder import Upsampler, WanDecoder
from helios_engine.vae.encoder import Downsampler, WanEncoder
from helios_engine.vae.layers import (
    CausalConv3d,
    ChannelRMSNorm,
    FrameAttention,
    Middle,
    ResidualBlock,
    as_frames,
    as_video,
)

SMALLEST_SQUARE = 1e-12
"""Keeps the norm of an all-zero pixel, and its gradient, finite."""


class Autoencoder(nn.Module):
    """Encoder and decoder; `state_dict` carries the published names of `AutoencoderKLWan`."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.halves = nn.ModuleDict({"encoder": WanEncoder(config), "decoder": WanDecoder(config)})

    def encode(self, pixels_BCThw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels in [-1, 1], (B, 3, 4T-3, H, W), to mean and log variance, (B, 16, T, H/8, W/8), not normalised."""
        half = self.halves["encoder"]
        assert isinstance(half, WanEncoder)
        layers = half.encoder
        x = _convolve(pixels_BCThw, layers.conv_in)
        for layer in layers.down_blocks:
            x = _residual(x, layer) if isinstance(layer, ResidualBlock) else _down(x, layer)  # type: ignore[arg-type]
        x = _convolve(_norm_silu(_middle(x, layers.mid_block), layers.norm_out), layers.conv_out)
        mean, log_variance = _convolve(x, half.quant_conv).chunk(2, dim=1)
        return mean, log_variance.clamp(-30.0, 20.0)

    def decode(self, latents_BCThw: torch.Tensor) -> torch.Tensor:
        """Latents as `encode` gives them, (B, 16, T, H/8, W/8), to pixels around [-1, 1], (B, 3, 4T-3, H, W)."""
        half = self.halves["decoder"]
        assert isinstance(half, WanDecoder)
        layers = half.decoder
        x = _middle(_convolve(_convolve(latents_BCThw, half.post_quant_conv), layers.conv_in), layers.mid_block)
        for layer in layers.up():
            x = _residual(x, layer) if isinstance(layer, ResidualBlock) else _up(x, layer)
        return _convolve(_norm_silu(x, layers.norm_out), layers.conv_out)


def _convolve(x_BCThw: torch.Tensor, layer: CausalConv3d) -> torch.Tensor:
    """The taps in time as channels of a 2-D convolution: torch's 3-D one is up to eight times slower on narrow layers.

    With autocast or on a GPU that is not so, yet the product is the same.
    """
    batch, taps = len(x_BCThw), layer.weight.shape[2]
    padding = (int(layer.padding[1]), int(layer.padding[2]))
    if x_BCThw.shape[2] == 1 or taps == 1:
        frames = F.conv2d(as_frames(x_BCThw), layer.weight[:, :, -1], layer.bias, padding=padding)
        return as_video(frames, batch)
    return as_video(_over_time(F.pad(x_BCThw, (0, 0, 0, 0, layer.past, 0)), layer, 1, padding), batch)


def _over_time(x_BCThw: torch.Tensor, layer: nn.Conv3d, stride: int, padding: tuple[int, int]) -> torch.Tensor:
    """A convolution over windows of three frames that begin `stride` apart: frames (B * T', C', h, w)."""
    count = x_BCThw.shape[2] - 2
    windows = torch.cat([x_BCThw[:, :, tap : tap + count : stride] for tap in range(3)], dim=1)
    return F.conv2d(as_frames(windows), layer.weight.transpose(1, 2).flatten(1, 2), layer.bias, padding=padding)


def _norm(x: torch.Tensor, norm: ChannelRMSNorm) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + SMALLEST_SQUARE) * norm.gamma


def _norm_silu(x: torch.Tensor, norm: ChannelRMSNorm) -> torch.Tensor:
    return F.silu(_norm(x, norm))


def _residual(x: torch.Tensor, block: ResidualBlock) -> torch.Tensor:
    inner = _convolve(_norm_silu(x, block.norm1), block.conv1)
    inner = _convolve(_norm_silu(inner, block.norm2), block.conv2)
    shortcut = block.conv_shortcut
    return inner + (_convolve(x, shortcut) if isinstance(shortcut, CausalConv3d) else x)


def _middle(x: torch.Tensor, middle: Middle) -> torch.Tensor:
    first, second = middle.resnets
    attention = middle.attentions[0]
    assert isinstance(first, ResidualBlock)
    assert isinstance(second, ResidualBlock)
    assert isinstance(attention, FrameAttention)
    return _residual(_attend(_residual(x, first), attention), second)


def _attend(x_BCThw: torch.Tensor, attention: FrameAttention) -> torch.Tensor:
    frames = as_frames(x_BCThw)
    qkv = attention.to_qkv(_norm(frames, attention.norm)).flatten(2).transpose(1, 2)[:, None]
    attended = F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1))
    out = attention.proj(attended[:, 0].transpose(1, 2).unflatten(2, frames.shape[2:]))
    return x_BCThw + as_video(out, len(x_BCThw))


def inflatable_(model: Autoencoder) -> None:
    """Prepares fresh weights for training on single frames first and on clips afterwards.

    A causal convolution sees of a single frame only its last tap. The others would still be untrained noise when clips
    come, so they begin at zero (and the last at the scale of all three); what halves or doubles time begins as picking
    and repeating frames. So the first clip is reconstructed frame by frame.
    """
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, CausalConv3d) and layer.weight.shape[2] == 3:
                layer.weight[:, :, -1] *= 3**0.5
                layer.weight[:, :, :-1] = 0.0
        for layer in model.modules():
            if isinstance(layer, Downsampler | Upsampler) and layer.time_conv is not None:
                weight, bias = layer.time_conv.weight, layer.time_conv.bias
                assert bias is not None
                weight.zero_()
                bias.zero_()
                same = torch.eye(weight.shape[1])[:, :, None, None]
                weight[:, :, -1] = same.repeat(len(weight) // weight.shape[1], 1, 1, 1)


def _down(x_BCThw: torch.Tensor, layer: Downsampler) -> torch.Tensor:
    x_BCThw = as_video(layer.resample(as_frames(x_BCThw)), len(x_BCThw))
    if layer.time_conv is None or x_BCThw.shape[2] == 1:
        return x_BCThw
    merged = as_video(_over_time(x_BCThw, layer.time_conv, 2, (0, 0)), len(x_BCThw))
    return torch.cat([x_BCThw[:, :, :1], merged], dim=2)


def _up(x_BCThw: torch.Tensor, layer: Upsampler) -> torch.Tensor:
    batch = len(x_BCThw)
    if layer.time_conv is not None and x_BCThw.shape[2] > 1:
        pairs = _convolve(x_BCThw[:, :, 1:], layer.time_conv).unflatten(1, (2, -1))  # B 2 C T h w
        doubled = torch.stack(pairs.unbind(1), dim=3).flatten(2, 3)
        x_BCThw = torch.cat([x_BCThw[:, :, :1], doubled], dim=2)
    convolution = layer.resample[1]
    enlarged = F.interpolate(as_frames(x_BCThw), scale_factor=2.0, mode="nearest-exact")
    return as_video(convolution(enlarged), batch)
