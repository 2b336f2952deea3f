"""Self- and cross-attention of the Helios DiT.

Legend: B batch, L tokens, N history tokens, D width, H heads, K head width. Sources: `HeliosAttention` and
`HeliosAttnProcessor` (diffusers); history key amplification: Helios paper, "Guidance Attention".
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from helios_engine.configs import TransformerConfig
from helios_engine.onednn import Linear
from helios_engine.rope import rotate

MAX_KEY_SCALE = 10.0

AttendFn = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Queries, keys and values, (B, L, H, K) each with their own L, to the queries' attention of the same shape."""


def sdpa(q_BLHK: torch.Tensor, k_BLHK: torch.Tensor, v_BLHK: torch.Tensor) -> torch.Tensor:
    """Attention on one device: softmax(q k^T / sqrt(K)) v for each head."""
    q_BHLK, k_BHLK, v_BHLK = (t.transpose(1, 2) for t in (q_BLHK, k_BLHK, v_BLHK))
    return F.scaled_dot_product_attention(q_BHLK, k_BHLK, v_BHLK).transpose(1, 2)


class TextKeysValues(NamedTuple):
    """Cross-attention keys and values of one block, (B, L, H, K) each; the last token counts `last_counts` times.

    A prompt's padding is hundreds of equal tokens; n equal keys weigh as one whose score is larger by log n.
    """

    k_BLHK: torch.Tensor
    v_BLHK: torch.Tensor
    last_counts: int = 1


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
        self.history_key_scale: nn.Parameter | None = None
        if amplify_history:
            self.history_key_scale = nn.Parameter(
                torch.ones(self.heads if config.history_scale_mode == "per_head" else 1)
            )

    def self_attention(
        self,
        x_BLD: torch.Tensor,
        history_tokens: int,
        table_LP: torch.Tensor,
        *,
        noisy_only: bool,
        attend: AttendFn = sdpa,
    ) -> torch.Tensor:
        """Attends over history and noisy tokens; with `noisy_only` only the noisy tokens ask, and are returned.

        attend: computes the attention itself; over several devices it brings in the keys of the other shards.
        """
        first = history_tokens if noisy_only else 0
        q_BLHK = rotate(self._heads(self.norm_q(self.to_q(x_BLD[:, first:]))), table_LP[first:])
        k_BLHK = rotate(self._heads(self.norm_k(self.to_k(x_BLD))), table_LP)
        if self.history_key_scale is not None:
            scale_H = 1.0 + torch.sigmoid(self.history_key_scale.float()) * (MAX_KEY_SCALE - 1.0)
            k_BLHK[:, :history_tokens] *= scale_H[:, None]
        return self._project(attend(q_BLHK, k_BLHK, self._heads(self.to_v(x_BLD))))

    def keys_values(self, text_BLD: torch.Tensor, last_counts: int = 1) -> TextKeysValues:
        """Cross-attention keys and values of the projected text. They depend on the prompt only."""
        keys_BLHK = self._heads(self.norm_k(self.to_k(text_BLD)))
        return TextKeysValues(keys_BLHK, self._heads(self.to_v(text_BLD)), last_counts)

    def cross_attention(self, x_BLD: torch.Tensor, text: TextKeysValues) -> torch.Tensor:
        """Attends from x to the text's keys and values."""
        q_BLHK = self._heads(self.norm_q(self.to_q(x_BLD)))
        if text.last_counts == 1:
            return self._project(sdpa(q_BLHK, text.k_BLHK, text.v_BLHK))
        bias_L = x_BLD.new_zeros(text.k_BLHK.shape[1])
        bias_L[-1] = math.log(text.last_counts)
        q_BHLK, k_BHLK, v_BHLK = (t.transpose(1, 2) for t in (q_BLHK, text.k_BLHK, text.v_BLHK))
        mask = bias_L.expand(1, 1, q_BHLK.shape[2], -1)
        return self._project(F.scaled_dot_product_attention(q_BHLK, k_BHLK, v_BHLK, mask).transpose(1, 2))

    def _heads(self, x_BLD: torch.Tensor) -> torch.Tensor:
        heads_BLHK: torch.Tensor = x_BLD.unflatten(-1, (self.heads, -1))
        return heads_BLHK

    def _project(self, out_BLHK: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.to_out[0](out_BLHK.flatten(2))
        return projected
