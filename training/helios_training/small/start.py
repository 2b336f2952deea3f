"""Fresh weights of the small DiT, from which training goes well: every block begins as the identity."""

import torch
from torch import nn

from helios_engine.configs import TransformerConfig
from helios_engine.model.block import Block
from helios_engine.model.transformer import HeliosTransformer


def fresh_transformer(config: TransformerConfig, seed: int) -> HeliosTransformer:
    """Branches end in zeros with gates of one; the output starts at zero; memory patches start as the noisy latents'.

    The larger patches are the smallest repeated and divided by 8 and 64, so that they begin as its mean.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = HeliosTransformer(config)
    with torch.no_grad():
        for block in model.blocks:
            assert isinstance(block, Block)
            for last in (block.attn1.to_out[0], block.attn2.to_out[0], block.ffn.net[2]):
                _zero(last)
            block.scale_shift_table[:, [2, 5]] = 1.0
        _zero(model.condition_embedder.time_proj)
        _zero(model.proj_out)
        first = model.patch_embedding
        for patch, times in ((model.patch_short, 1), (model.patch_mid, 2), (model.patch_long, 4)):
            patch.weight.copy_(first.weight.repeat(1, 1, times, times, times) / times**3)
            assert patch.bias is not None
            assert first.bias is not None
            patch.bias.copy_(first.bias)
    return model


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.zero_()
