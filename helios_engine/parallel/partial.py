"""Attention over some of the keys, with what is needed to put such partial results together.

For queries q and the keys of part p: lse_p = log sum_i exp(q.k_i / sqrt(K)), out_p = sum_i exp(q.k_i / sqrt(K) - lse_p)
v_i. The attention over all parts is sum_p exp(lse_p - lse) out_p with lse = log sum_p exp(lse_p): blockwise softmax,
Ring Attention, section 3.1. `F.scaled_dot_product_attention` keeps its log-sum-exp to itself, so this calls the
operators behind it; they are not public, hence one file.

Legend: B batch, L queries, H heads, K head width.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class PartialAttention:
    """Output (B, H, L, K) over some of the keys and their log-sum-exp (B, H, L), both at least float32."""

    out_BHLK: torch.Tensor
    lse_BHL: torch.Tensor

    def merged(self, other: "PartialAttention") -> "PartialAttention":
        """The attention over the keys of both. Large scores do not overflow: no exp of a positive number is taken."""
        weight_BHL = torch.sigmoid(other.lse_BHL - self.lse_BHL)  # exp(lse_other - lse), without computing lse first
        return PartialAttention(
            out_BHLK=torch.lerp(self.out_BHLK, other.out_BHLK, weight_BHL[..., None]),
            lse_BHL=torch.logaddexp(self.lse_BHL, other.lse_BHL),
        )


def partial_attention(q_BLHK: torch.Tensor, k_BLHK: torch.Tensor, v_BLHK: torch.Tensor) -> PartialAttention:
    """Attention of q over these keys, of which there is at least one, with the fastest kernel that tells the lse."""
    q, k, v = (t.transpose(1, 2) for t in (q_BLHK, k_BLHK, v_BLHK))
    out_BHLK, lse_BHL = _kernel(q, k, v)
    return PartialAttention(out_BHLK=out_BHLK.to(lse_BHL.dtype), lse_BHL=lse_BHL)


def _kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    aten = torch.ops.aten
    if q.numel() == 0:  # the CPU operator dies of a division by zero
        return plain_attention(q, k, v)
    if q.device.type == "cpu":
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
        return out, lse
    if q.device.type == "cuda":
        params = torch.backends.cuda.SDPAParams(q, k, v, None, 0.0, False, False)
        if q.shape[-1] % 8 == 0 and torch.backends.cuda.can_use_flash_attention(params):
            out, lse, *_ = aten._scaled_dot_product_flash_attention(q, k, v)
            return out, lse
        if torch.backends.cuda.can_use_efficient_attention(params):
            out, lse, *_ = aten._scaled_dot_product_efficient_attention(q, k, v, None, compute_log_sumexp=True)
            return out, lse[..., : q.shape[2]]  # this kernel rounds the number of rows up
    return plain_attention(q, k, v)


def plain_attention(
    q_BHLK: torch.Tensor, k_BHLK: torch.Tensor, v_BHLK: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The formulas above in float32, or float64 for float64 input: output (B, H, L, K), log-sum-exp (B, H, L)."""
    dtype = torch.promote_types(q_BHLK.dtype, torch.float32)
    q, k, v = (t.to(dtype) for t in (q_BHLK, k_BHLK, v_BHLK))
    scores = q @ k.mT * q.shape[-1] ** -0.5
    lse_BHL = scores.logsumexp(-1)
    return torch.exp(scores - lse_BHL[..., None]) @ v, lse_BHL
