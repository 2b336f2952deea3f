"""The DiT as it is trained: the engine's layers, a noise level for each sample, gradients everywhere.

Legend: B batch, C channels, T latent frames, h/w latent height and width, L tokens (N of history first), D width,
H heads, K head width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from helios_engine.model.attention import Attention, TextKeysValues, key_scales
from helios_engine.model.block import Block
from helios_engine.model.transformer import HeliosTransformer, unpatchify
from helios_kernels.norm_rotate import norm_rotate


class _Modulation(NamedTuple):
    """Six rows each for history tokens, (1, 6, D), and noisy ones, (B, 6, D)."""

    history_16D: torch.Tensor
    noisy_B6D: torch.Tensor

    def rows(self, index: int) -> "tuple[torch.Tensor, torch.Tensor]":
        return self.history_16D[:, index : index + 1], self.noisy_B6D[:, index : index + 1]


class Conditions(NamedTuple):
    """What a batch is conditioned on. history: (B, C, 19, h, w); anchor: (B, C, 1, h, w); embeds: (B, 512, text_dim).

    History and anchor keep their full size in every stage of a pyramid.
    """

    history: torch.Tensor
    anchor: torch.Tensor
    embeds: torch.Tensor


def velocity(
    model: HeliosTransformer,
    latents_BCThw: torch.Tensor,
    timestep_B: torch.Tensor,
    given: Conditions,
    *,
    recompute: bool = False,
) -> torch.Tensor:
    """The predicted flow of noisy latents, as the engine's forward gives it for each sample alone.

    timestep_B: 0 to 1000, of the noisy latents; the history's is 0. recompute: keep no activations inside of blocks but
    make them again for the gradients.
    """
    features = hidden_features(model, latents_BCThw, timestep_B, given, recompute=recompute)
    return unpatchify(model.proj_out(features.last_BLD), latents_BCThw.shape, model.config.patch_size)


class Features(NamedTuple):
    """blocks: the noisy tokens behind each block, (B, L - N, D); last_BLD: normed and modulated for the projection."""

    blocks: list[torch.Tensor]
    last_BLD: torch.Tensor


def hidden_features(
    model: HeliosTransformer,
    latents_BCThw: torch.Tensor,
    timestep_B: torch.Tensor,
    given: Conditions,
    *,
    recompute: bool = False,
) -> Features:
    """What the model has made of the noisy latents behind each block, which a discriminator sees, and at the end."""
    history = model.encode_history(given.history, given.anchor)
    text = model.encode_text(given.embeds, padding_gradient=False)  # padding is zeros, not the text encoder's
    table_LP = model.table(latents_BCThw, history)
    x_BLD = model.all_tokens(latents_BCThw, history)
    count = history.tokens_BND.shape[1]
    embedder = model.condition_embedder
    _history_1D, history_16D = embedder.embed_time(timestep_B.new_zeros(1))
    noisy_BD, noisy_B6D = embedder.embed_time(timestep_B)
    behind = []
    for block, text_kv in zip(model.blocks, text, strict=True):
        assert isinstance(block, Block)
        own = block.scale_shift_table.float()
        modulation = _Modulation(own + history_16D.float(), own + noisy_B6D.float())
        arguments = (block, x_BLD, modulation, count, table_LP, text_kv)
        x_BLD = checkpoint(_block, *arguments, use_reentrant=False) if recompute else _block(*arguments)
        behind.append(x_BLD[:, count:])
    shift_B1D, scale_B1D = (model.norm_out.scale_shift_table.float() + noisy_BD[:, None].float()).chunk(2, dim=1)
    last = behind[-1]
    normed = F.layer_norm(last.float(), last.shape[-1:], eps=model.config.eps) * (1 + scale_B1D) + shift_B1D
    return Features(blocks=behind, last_BLD=normed.type_as(last))


def _block(
    block: Block,
    x_BLD: torch.Tensor,
    modulation: _Modulation,
    count: int,
    table_LP: torch.Tensor,
    text: TextKeysValues,
) -> torch.Tensor:
    normed = _modulated(x_BLD, count, modulation.rows(0), modulation.rows(1), block.eps)
    x_BLD = _gated(x_BLD, _self_attention(block.attn1, normed, count, table_LP), count, modulation.rows(2))
    noisy = x_BLD[:, count:]
    affine = F.layer_norm(noisy.float(), noisy.shape[-1:], block.norm2.weight, block.norm2.bias, block.eps)
    told = block.attn2.cross_attention(affine.type_as(noisy), text)
    x_BLD = torch.cat([x_BLD[:, :count], noisy + told], dim=1)
    normed = _modulated(x_BLD, count, modulation.rows(3), modulation.rows(4), block.eps)
    return _gated(x_BLD, block.ffn(normed), count, modulation.rows(5))


def _self_attention(attention: Attention, x_BLD: torch.Tensor, count: int, table_LP: torch.Tensor) -> torch.Tensor:
    scale = attention.history_key_scale
    eps = attention.norm_q.eps
    assert eps is not None
    q_BLHK, k_BLHK = norm_rotate(
        attention.to_q(x_BLD),
        attention.to_k(x_BLD),
        attention.norm_q.weight,
        attention.norm_k.weight,
        table_LP,
        attention.heads,
        eps,
        count,
        None if scale is None else key_scales(scale),
    )
    v_BLHK = attention.to_v(x_BLD).unflatten(-1, (attention.heads, -1))
    return attention.project(attention.attend(q_BLHK, k_BLHK, v_BLHK))


Rows = tuple[torch.Tensor, torch.Tensor]
"""A value for history tokens, (1, 1, D), and one for noisy tokens, (B, 1, D)."""


def _modulated(x_BLD: torch.Tensor, count: int, shift: Rows, scale: Rows, eps: float) -> torch.Tensor:
    y_BLD = F.layer_norm(x_BLD.float(), x_BLD.shape[-1:], eps=eps)
    parts = (y_BLD[:, :count], y_BLD[:, count:])
    changed = [torch.addcmul(b, part, 1.0 + a) for part, b, a in zip(parts, shift, scale, strict=True)]
    return torch.cat(changed, dim=1).type_as(x_BLD)


def _gated(x_BLD: torch.Tensor, update_BLD: torch.Tensor, count: int, gate: Rows) -> torch.Tensor:
    history, noisy = gate
    gated = torch.cat([update_BLD[:, :count].float() * history, update_BLD[:, count:].float() * noisy], dim=1)
    return (x_BLD.float() + gated).type_as(x_BLD)
