"""The encoder half of a published VAE folder: what it holds. The engine decodes only, and does not load it."""

import torch

from helios_engine.configs import VAEConfig


def encoder_shapes(config: VAEConfig) -> dict[str, torch.Size]:
    """Tensor names and shapes of `encoder.*` and `quant_conv.*`. Source: `WanEncoder3d` (diffusers)."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, out: int, *rest: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, *rest), (out,)

    def residual(name: str, channels_in: int, channels_out: int) -> None:
        for number, channels in ((1, channels_in), (2, channels_out)):
            shapes[f"{name}.norm{number}.gamma"] = (channels, 1, 1, 1)
            layer(f"{name}.conv{number}", channels_out, channels, 3, 3, 3)
        if channels_in != channels_out:
            layer(f"{name}.conv_shortcut", channels_out, channels_in, 1, 1, 1)

    widths = [config.base_dim * mult for mult in config.dim_mult]
    layer("encoder.conv_in", widths[0], config.in_channels, 3, 3, 3)
    number, incoming = 0, widths[0]
    for stage, width in enumerate(widths):
        for _ in range(config.num_res_blocks):
            residual(f"encoder.down_blocks.{number}", incoming, width)
            number, incoming = number + 1, width
        if stage < len(widths) - 1:
            layer(f"encoder.down_blocks.{number}.resample.1", width, width, 3, 3)
            if config.temperal_downsample[stage]:
                layer(f"encoder.down_blocks.{number}.time_conv", width, width, 3, 1, 1)
            number += 1
    for number in range(2):
        residual(f"encoder.mid_block.resnets.{number}", incoming, incoming)
    shapes["encoder.mid_block.attentions.0.norm.gamma"] = (incoming, 1, 1)
    layer("encoder.mid_block.attentions.0.to_qkv", 3 * incoming, incoming, 1, 1)
    layer("encoder.mid_block.attentions.0.proj", incoming, incoming, 1, 1)
    shapes["encoder.norm_out.gamma"] = (incoming, 1, 1, 1)
    layer("encoder.conv_out", 2 * config.z_dim, incoming, 3, 3, 3)
    layer("quant_conv", 2 * config.z_dim, 2 * config.z_dim, 1, 1, 1)
    return {name: torch.Size(shape) for name, shape in shapes.items()}
