"""Gated residual addition, fused with the LayerNorm that reads its result next.

Legend: B batch, L tokens (N history first, M noisy after them), D width.
    residual = x + update * gate[row]              row 0 for history tokens, row 1 for noisy ones; rounded to x's dtype
    normed = LayerNorm(residual) * (1 + scale[row]) + shift[row], or LayerNorm(residual) * weight + bias
The norm reads the rounded residual, as it does when the two run one after the other; x is left as it is.
A block needs three combinations of it, in this order:
    after self-attention:    `add_gated_affine_norm`     (only noisy tokens go on to the cross-attention)
    after cross-attention:   `add_noisy_modulated_norm`  (only noisy tokens are updated, without a gate)
    after the feed-forward:  `add_gated_modulated_norm` with the next block's modulation, or the output's
"""

import torch

from helios_kernels.backend import at_rows, use_triton
from helios_kernels.gated_residual_kernel import launch
from helios_kernels.modulated_norm import affine_norm_ref, modulated_norm_ref

Pair = tuple[torch.Tensor, torch.Tensor]


def add_gated_modulated_norm(
    x_BLD: torch.Tensor,
    update_BLD: torch.Tensor,
    history_tokens: int,
    gate_2D: torch.Tensor,
    shift_2D: torch.Tensor,
    scale_2D: torch.Tensor,
    eps: float,
) -> Pair:
    """The new residual stream (B, L, D) and its modulated norm (B, L, D), both in x's dtype."""
    path = add_gated_modulated_norm_triton if use_triton(x_BLD) else add_gated_modulated_norm_ref
    return path(x_BLD, update_BLD, history_tokens, gate_2D, shift_2D, scale_2D, eps)


def add_gated_affine_norm(
    x_BLD: torch.Tensor,
    update_BLD: torch.Tensor,
    history_tokens: int,
    gate_2D: torch.Tensor,
    weight_D: torch.Tensor,
    bias_D: torch.Tensor,
    eps: float,
) -> Pair:
    """The new residual stream (B, L, D) and the affine norm of its noisy tokens (B, M, D), both in x's dtype."""
    path = add_gated_affine_norm_triton if use_triton(x_BLD) else add_gated_affine_norm_ref
    return path(x_BLD, update_BLD, history_tokens, gate_2D, weight_D, bias_D, eps)


def add_noisy_modulated_norm(
    x_BLD: torch.Tensor,
    update_BMD: torch.Tensor,
    history_tokens: int,
    shift_2D: torch.Tensor,
    scale_2D: torch.Tensor,
    eps: float,
) -> Pair:
    """x with `update` added to its noisy tokens (B, L, D), and the modulated norm of all (B, L, D), in x's dtype."""
    path = add_noisy_modulated_norm_triton if use_triton(x_BLD) else add_noisy_modulated_norm_ref
    return path(x_BLD, update_BMD, history_tokens, shift_2D, scale_2D, eps)


def add_gated_ref(
    x_BLD: torch.Tensor, update_BLD: torch.Tensor, history_tokens: int, gate_2D: torch.Tensor
) -> torch.Tensor:
    """x + update * gate[row]: (B, L, D) in x's dtype."""
    out_BLD = x_BLD.to(torch.float32, copy=True)
    for row, (out, update) in enumerate(
        zip(at_rows(out_BLD, history_tokens), at_rows(update_BLD, history_tokens), strict=True)
    ):
        out.addcmul_(update.float(), gate_2D[row].float())
    return out_BLD.type_as(x_BLD)


def add_gated_modulated_norm_ref(
    x_BLD: torch.Tensor,
    update_BLD: torch.Tensor,
    history_tokens: int,
    gate_2D: torch.Tensor,
    shift_2D: torch.Tensor,
    scale_2D: torch.Tensor,
    eps: float,
) -> Pair:
    """See `add_gated_modulated_norm`."""
    residual_BLD = add_gated_ref(x_BLD, update_BLD, history_tokens, gate_2D)
    return residual_BLD, modulated_norm_ref(residual_BLD, history_tokens, shift_2D, scale_2D, eps)


def add_gated_affine_norm_ref(
    x_BLD: torch.Tensor,
    update_BLD: torch.Tensor,
    history_tokens: int,
    gate_2D: torch.Tensor,
    weight_D: torch.Tensor,
    bias_D: torch.Tensor,
    eps: float,
) -> Pair:
    """See `add_gated_affine_norm`."""
    residual_BLD = add_gated_ref(x_BLD, update_BLD, history_tokens, gate_2D)
    return residual_BLD, affine_norm_ref(residual_BLD[:, history_tokens:], weight_D, bias_D, eps)


def add_noisy_modulated_norm_ref(
    x_BLD: torch.Tensor,
    update_BMD: torch.Tensor,
    history_tokens: int,
    shift_2D: torch.Tensor,
    scale_2D: torch.Tensor,
    eps: float,
) -> Pair:
    """See `add_noisy_modulated_norm`."""
    residual_BLD = x_BLD.to(torch.float32, copy=True)
    residual_BLD[:, history_tokens:] += update_BMD.float()
    residual_BLD = residual_BLD.type_as(x_BLD)
    return residual_BLD, modulated_norm_ref(residual_BLD, history_tokens, shift_2D, scale_2D, eps)


def add_gated_modulated_norm_triton(
    x_BLD: torch.Tensor,
    update_BLD: torch.Tensor,
    history_tokens: int,
    gate_2D: torch.Tensor,
    shift_2D: torch.Tensor,
    scale_2D: torch.Tensor,
    eps: float,
) -> Pair:
    """See `add_gated_modulated_norm`."""
    return launch(x_BLD, update_BLD, history_tokens, gate_2D, shift_2D, scale_2D, eps=eps, one_plus=True)


def add_gated_affine_norm_triton(
    x_BLD: torch.Tensor,
    update_BLD: torch.Tensor,
    history_tokens: int,
    gate_2D: torch.Tensor,
    weight_D: torch.Tensor,
    bias_D: torch.Tensor,
    eps: float,
) -> Pair:
    """See `add_gated_affine_norm`."""
    assert weight_D.shape == bias_D.shape == x_BLD.shape[-1:]
    bias_2D, weight_2D = (row_D.contiguous().expand(2, -1) for row_D in (bias_D, weight_D))
    return launch(x_BLD, update_BLD, history_tokens, gate_2D, bias_2D, weight_2D, norm_from=history_tokens, eps=eps)


def add_noisy_modulated_norm_triton(
    x_BLD: torch.Tensor,
    update_BMD: torch.Tensor,
    history_tokens: int,
    shift_2D: torch.Tensor,
    scale_2D: torch.Tensor,
    eps: float,
) -> Pair:
    """See `add_noisy_modulated_norm`."""
    return launch(
        x_BLD, update_BMD, history_tokens, None, shift_2D, scale_2D, update_from=history_tokens, eps=eps, one_plus=True
    )
