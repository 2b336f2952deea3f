"""One transformer block of the Helios DiT.

Legend: B batch, L tokens (history first, then noisy), D width. Source: `HeliosTransformerBlock` (diffusers).
The reference expands the time modulation to every token; there are only two rows, history (timestep 0) and noisy.
"""

import torch
import torch.nn.functional as F
from torch import nn

from helios_engine.attention import Attention, TextKeysValues
from helios_engine.attention_backends import AttendFn, sdpa
from helios_engine.configs import TransformerConfig
from helios_engine.onednn import Linear
from helios_kernels import gated_residual, norm_rotate
from helios_kernels import modulated_norm as norms
from helios_kernels.backend import use_triton


def modulated_norm(
    x_BLD: torch.Tensor, history_tokens: int, shift_2D: torch.Tensor, scale_2D: torch.Tensor, eps: float
) -> torch.Tensor:
    """LayerNorm(x) * (1 + scale) + shift in float32; row 0 for history tokens, row 1 for noisy ones; x's dtype."""
    if use_triton(x_BLD):
        return norms.modulated_norm(x_BLD, history_tokens, shift_2D, scale_2D, eps)
    y_BLD = F.layer_norm(x_BLD.float(), x_BLD.shape[-1:], eps=eps)
    for row, part in enumerate((y_BLD[:, :history_tokens], y_BLD[:, history_tokens:])):
        torch.addcmul(shift_2D[row], part, 1.0 + scale_2D[row], out=part)
    return y_BLD.type_as(x_BLD)


def add_gated(
    x_BLD: torch.Tensor, update_BLD: torch.Tensor, history_tokens: int, gate_2D: torch.Tensor
) -> torch.Tensor:
    """x + update * gate in float32, gate rows as in `modulated_norm`; x's dtype."""
    out_BLD = x_BLD.float() if x_BLD.dtype != torch.float32 else x_BLD.clone()
    for row, tokens in enumerate((slice(None, history_tokens), slice(history_tokens, None))):
        out_BLD[:, tokens].addcmul_(update_BLD[:, tokens].float(), gate_2D[row])
    return out_BLD.type_as(x_BLD)


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
        out: torch.Tensor = down(F.gelu(up["proj"](x_BLD), approximate="tanh"))  # type: ignore[index]
        return out


class Block(nn.Module):
    """Self-attention over all tokens, text cross-attention of the noisy ones, feed-forward."""

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
        time_26D: torch.Tensor,
        history_tokens: int,
        table_LP: torch.Tensor,
        text: TextKeysValues,
        *,
        noisy_only: bool = False,
        attend: AttendFn = sdpa,
    ) -> torch.Tensor:
        """Returns all tokens, or with `noisy_only` (the last block) the noisy ones. attend: of the self-attention."""
        if use_triton(x_BLD) or torch.compiler.is_compiling():
            return self._fused(x_BLD, time_26D, history_tokens, table_LP, text, noisy_only=noisy_only, attend=attend)
        shift_attn, scale_attn, gate_attn, shift_ffn, scale_ffn, gate_ffn = self._modulation(time_26D)

        normed = modulated_norm(x_BLD, history_tokens, shift_attn, scale_attn, self.eps)
        attended = self.attn1.self_attention(normed, history_tokens, table_LP, noisy_only=noisy_only, attend=attend)
        if noisy_only:
            x_BLD, history_tokens = x_BLD[:, history_tokens:], 0
        x_BLD = add_gated(x_BLD, attended, history_tokens, gate_attn)

        noisy = x_BLD[:, history_tokens:]
        normed = F.layer_norm(noisy.float(), noisy.shape[-1:], self.norm2.weight, self.norm2.bias, self.eps).type_as(
            noisy
        )
        noisy += self.attn2.cross_attention(normed, text)

        normed = modulated_norm(x_BLD, history_tokens, shift_ffn, scale_ffn, self.eps)
        return add_gated(x_BLD, self.ffn(normed), history_tokens, gate_ffn)

    def _fused(
        self,
        x_BLD: torch.Tensor,
        time_26D: torch.Tensor,
        history_tokens: int,
        table_LP: torch.Tensor,
        text: TextKeysValues,
        *,
        noisy_only: bool,
        attend: AttendFn,
    ) -> torch.Tensor:
        """The same out of the fused kernels: each norm in one pass with the residual addition that feeds it."""
        shift_attn, scale_attn, gate_attn, shift_ffn, scale_ffn, gate_ffn = self._modulation(time_26D)
        own, history = self.attn1, history_tokens

        normed = norms.modulated_norm(x_BLD, history, shift_attn, scale_attn, self.eps)
        q_BLD, k_BLD, v_BLD = own.projections(normed, history if noisy_only else 0)
        q_BLHK, k_BLHK = norm_rotate.norm_rotate(
            q_BLD,
            k_BLD,
            own.norm_q.weight,
            own.norm_k.weight,
            table_LP,
            own.heads,
            self.eps,
            history,
            own.key_scale(),
        )
        attended = own.project(attend(q_BLHK, k_BLHK, v_BLD.unflatten(-1, (own.heads, -1))))
        if noisy_only:
            x_BLD, history = x_BLD[:, history:], 0
        x_BLD, noisy = gated_residual.add_gated_affine_norm(
            x_BLD, attended, history, gate_attn, self.norm2.weight, self.norm2.bias, self.eps
        )
        told = self.attn2.cross_attention(noisy, text)
        x_BLD, normed = gated_residual.add_noisy_modulated_norm(x_BLD, told, history, shift_ffn, scale_ffn, self.eps)
        return gated_residual.add_gated(x_BLD, self.ffn(normed), history, gate_ffn)

    def _modulation(self, time_26D: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Shift, scale and gate of the attention, then of the feed-forward, (2, D) each."""
        return (self.scale_shift_table.float() + time_26D.float()).unbind(1)
