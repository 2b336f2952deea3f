"""One transformer block of the Helios DiT.

Legend: B batch, L tokens (history first, then noisy), D width. Source: `HeliosTransformerBlock` (diffusers).
The reference expands the time modulation to every token; there are only two rows, history (timestep 0) and noisy.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from helios_engine.configs import TransformerConfig
from helios_engine.model.attention import Attention, TextKeysValues
from helios_engine.ops.attention_backends import AttendFn, sdpa
from helios_engine.ops.onednn import Linear
from helios_kernels.backend import use_triton
from helios_kernels.gated_residual import add_gated_affine_norm, add_gated_modulated_norm, add_noisy_modulated_norm
from helios_kernels.norm_rotate import norm_rotate


class Modulation(NamedTuple):
    """What one block scales and shifts by, float32; a row for history tokens, then one for noisy ones.

    own: shift, scale and gate of the attention, then of the feed-forward. following: shift and scale of the norm that
    comes next: the following block's first, or the model's last. key_scale_H: see `attention.key_scales`.
    """

    own_26D: torch.Tensor
    following_22D: torch.Tensor
    key_scale_H: torch.Tensor | None


def has_gelu_product(layer: nn.Module, x: torch.Tensor) -> bool:
    """Whether this layer's product can end in GELU: in bfloat16 on a GPU, unless the layer is 8-bit or has adapters.

    On CPUs torch's product would end in another GELU, without the approximation.
    """
    if not isinstance(layer, nn.Linear) or layer._forward_hooks:
        return False
    return use_triton(x, layer.weight, layer.bias) and x.is_cuda and x.dtype == torch.bfloat16


def gelu_product(layer: nn.Linear, x_BLD: torch.Tensor) -> torch.Tensor:
    """tanh-approximated GELU of the layer's output, computed before that is rounded and written."""
    rows = torch._addmm_activation(layer.bias, x_BLD.flatten(0, -2), layer.weight.t(), use_gelu=True)
    out_BLF: torch.Tensor = rows.unflatten(0, x_BLD.shape[:-1])
    return out_BLF


class FeedForward(nn.Module):
    """Linear, tanh-approximated GELU, linear."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        up = nn.ModuleDict({"proj": Linear(config.inner_dim, config.ffn_dim)})
        down = Linear(config.ffn_dim, config.inner_dim)
        self.net = nn.ModuleList([up, nn.Identity(), down])  # published names: net.0.proj, net.2

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        """(B, L, D) to (B, L, D)."""
        up, _, down = self.net
        layer = up["proj"]  # type: ignore[index]
        if has_gelu_product(layer, x_BLD):
            inner = gelu_product(layer, x_BLD)
        else:
            inner = F.gelu(layer(x_BLD), approximate="tanh")
        out: torch.Tensor = down(inner)
        return out


class Block(nn.Module):
    """Self-attention over all tokens, text cross-attention of the noisy ones, feed-forward.

    A block takes the residual stream with its norm and returns both for the next: the addition that ends a block and
    the norm that begins the next are one pass.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.attn1 = Attention(config, amplify_history=config.is_amplify_history)
        self.attn2 = Attention(config, amplify_history=False)
        self.norm2 = nn.LayerNorm(config.inner_dim, eps=config.eps)
        self.ffn = FeedForward(config)
        self.scale_shift_table = nn.Parameter(torch.zeros(1, 6, config.inner_dim))

    def forward(
        self,
        x_BLD: torch.Tensor,
        normed_BLD: torch.Tensor,
        modulation: Modulation,
        history_tokens: int,
        table_LP: torch.Tensor,
        text: TextKeysValues,
        *,
        noisy_only: bool = False,
        attend: AttendFn = sdpa,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns all tokens and their norm, or with `noisy_only` (the last block) those of the noisy ones.

        normed_BLD: `modulated_norm` of x by the first two of own_26D. attend: computes the self-attention; over
        several devices it brings in the keys of the other shards.
        """
        _, _, gate_attn, shift_ffn, scale_ffn, gate_ffn = modulation.own_26D.unbind(1)
        own, history = self.attn1, history_tokens

        q_BLD, k_BLD, v_BLD = own.projections(normed_BLD, history if noisy_only else 0)
        q_BLHK, k_BLHK = norm_rotate(
            q_BLD,
            k_BLD,
            own.norm_q.weight,
            own.norm_k.weight,
            table_LP,
            own.heads,
            self.eps,
            history,
            modulation.key_scale_H,
        )
        attended = own.project(attend(q_BLHK, k_BLHK, v_BLD.unflatten(-1, (own.heads, -1))))
        if noisy_only:
            x_BLD, history = x_BLD[:, history:], 0
        x_BLD, noisy = add_gated_affine_norm(
            x_BLD, attended, history, gate_attn, self.norm2.weight, self.norm2.bias, self.eps
        )
        told = self.attn2.cross_attention(noisy, text)
        x_BLD, normed = add_noisy_modulated_norm(x_BLD, told, history, shift_ffn, scale_ffn, self.eps)
        next_shift, next_scale = modulation.following_22D.unbind(1)
        return add_gated_modulated_norm(x_BLD, self.ffn(normed), history, gate_ffn, next_shift, next_scale, self.eps)
