"""Self- and cross-attention of the Helios DiT.

Legend: B batch, L tokens, N history tokens, D width, H heads, K head width. Sources: `HeliosAttention` and
`HeliosAttnProcessor` (diffusers); history key amplification: Helios paper, "Guidance Attention".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from helios_engine.configs import TransformerConfig
from helios_engine.ops.attention_backends import AttendFn, sdpa
from helios_engine.ops.onednn import Linear
from helios_kernels.backend import needs_gradient
from helios_kernels.rms_norm import rms_norm

MAX_KEY_SCALE = 10.0


class TextKeysValues(NamedTuple):
    """Cross-attention keys and values of one block, (B, L, H, K) each; the last token counts `last_counts` times.

    A prompt's padding is hundreds of equal tokens; n equal keys weigh as one whose score is larger by log n.
    """

    k_BLHK: torch.Tensor
    v_BLHK: torch.Tensor
    last_counts: int = 1


@dataclass(frozen=True, kw_only=True)
class JoinedProjections:
    """Queries, keys and values as one linear layer; weight (3D, D), bias (3D)."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, x_BLD: torch.Tensor) -> torch.Tensor:
        """(B, L, D) to (B, L, 3D)."""
        return F.linear(x_BLD, self.weight, self.bias)


def key_scales(learned: torch.Tensor) -> torch.Tensor:
    """Factors of the history's keys, float32: one for each head or one for all, from `history_key_scale`."""
    return 1.0 + torch.sigmoid(learned.float()) * (MAX_KEY_SCALE - 1.0)


class Attention(nn.Module):
    """Multi-head attention with RMS-normalised queries and keys (over all heads at once)."""

    def __init__(self, config: TransformerConfig, *, amplify_history: bool) -> None:
        super().__init__()
        dim, self.heads = config.inner_dim, config.num_attention_heads
        self.to_q = Linear(dim, dim)
        self.to_k = Linear(dim, dim)
        self.to_v = Linear(dim, dim)
        self.to_out = nn.ModuleList([Linear(dim, dim)])
        self.norm_q = nn.RMSNorm(dim, eps=config.eps)
        self.norm_k = nn.RMSNorm(dim, eps=config.eps)
        self.attend: AttendFn = sdpa
        self.joined: Callable[[torch.Tensor], torch.Tensor] | None = None
        self.history_key_scale: nn.Parameter | None = None
        if amplify_history:
            self.history_key_scale = nn.Parameter(
                torch.ones(self.heads if config.history_scale_mode == "per_head" else 1)
            )

    @torch.no_grad()
    def join_projections(self) -> None:
        """Has the fused block make queries, keys and values in one product.

        The three layers' parameters become views of the joined ones. To be done last: with the weights on their device.
        """
        layers = (self.to_q, self.to_k, self.to_v)
        weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
        for layer, weight_part, bias_part in zip(layers, weight.chunk(3), bias.chunk(3), strict=True):
            layer.weight.data, layer.bias.data = weight_part, bias_part
        self.joined = JoinedProjections(weight=weight, bias=bias)

    def projections(self, x_BLD: torch.Tensor, first: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries of the tokens from `first` on, keys and values of all.

        In one product where the projections are joined, unless adapters hook on the layers or their own parameters need
        gradients.
        """
        layers = (self.to_q, self.to_k, self.to_v)
        if self.joined is None or any(layer._forward_hooks or needs_gradient(*layer.parameters()) for layer in layers):
            return self.to_q(x_BLD[:, first:]), self.to_k(x_BLD), self.to_v(x_BLD)
        q_BLD, k_BLD, v_BLD = self.joined(x_BLD).chunk(3, dim=-1)
        return q_BLD[:, first:], k_BLD, v_BLD

    def keys_values(self, text_BLD: torch.Tensor, last_counts: int = 1) -> TextKeysValues:
        """Cross-attention keys and values of the projected text. They depend on the prompt only."""
        keys_BLHK = self._heads(self._normed(self.to_k(text_BLD), self.norm_k))
        return TextKeysValues(keys_BLHK, self._heads(self.to_v(text_BLD)), last_counts)

    def cross_attention(self, x_BLD: torch.Tensor, text: TextKeysValues) -> torch.Tensor:
        """Attends from x to the text's keys and values."""
        q_BLHK = self._heads(self._normed(self.to_q(x_BLD), self.norm_q))
        if text.last_counts == 1:
            return self.project(self.attend(q_BLHK, text.k_BLHK, text.v_BLHK))
        bias_L = x_BLD.new_zeros(text.k_BLHK.shape[1])
        bias_L[-1] = math.log(text.last_counts)
        q_BHLK, k_BHLK, v_BHLK = (t.transpose(1, 2) for t in (q_BLHK, text.k_BLHK, text.v_BLHK))
        mask = bias_L.expand(1, 1, q_BHLK.shape[2], -1)
        return self.project(F.scaled_dot_product_attention(q_BHLK, k_BHLK, v_BHLK, mask).transpose(1, 2))

    def project(self, out_BLHK: torch.Tensor) -> torch.Tensor:
        """Joins the heads of an attention's result: (B, L, D)."""
        projected: torch.Tensor = self.to_out[0](out_BLHK.flatten(2))
        return projected

    def _normed(self, x_BLD: torch.Tensor, norm: nn.RMSNorm) -> torch.Tensor:
        assert norm.eps is not None
        return rms_norm(x_BLD, norm.weight, norm.eps)

    def _heads(self, x_BLD: torch.Tensor) -> torch.Tensor:
        heads_BLHK: torch.Tensor = x_BLD.unflatten(-1, (self.heads, -1))
        return heads_BLHK
