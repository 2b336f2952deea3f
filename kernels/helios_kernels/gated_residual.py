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

from helios_kernels.backend import forward_only, needs_gradient, use_triton
from helios_kernels.gated_residual_kernel import launch
from helios_kernels.modulated_norm import affine_norm_ref, modulated_norm_ref
from helios_kernels.rows import add_product_by_row, at_rows

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
    kernel = use_triton(x_BLD, update_BLD, gate_2D, shift_2D, scale_2D)
    path = add_gated_modulated_norm_triton if kernel else add_gated_modulated_norm_ref
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
    kernel = use_triton(x_BLD, update_BLD, gate_2D, weight_D, bias_D)
    path = add_gated_affine_norm_triton if kernel else add_gated_affine_norm_ref
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
    kernel = use_triton(x_BLD, update_BMD, shift_2D, scale_2D)
    path = add_noisy_modulated_norm_triton if kernel else add_noisy_modulated_norm_ref
    return path(x_BLD, update_BMD, history_tokens, shift_2D, scale_2D, eps)


def add_gated_ref(
    x_BLD: torch.Tensor, update_BLD: torch.Tensor, history_tokens: int, gate_2D: torch.Tensor
) -> torch.Tensor:
    """x + update * gate[row]: (B, L, D) in x's dtype."""
    wide_BLD = x_BLD.float()
    reuse = torch.empty_like(wide_BLD) if wide_BLD is x_BLD else wide_BLD  # the caller's x is left as it is
    out_BLD = add_product_by_row(wide_BLD, update_BLD.float(), gate_2D.float(), history_tokens, reuse=reuse)
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
    history_BND, noisy_BMD = at_rows(x_BLD, history_tokens)
    if needs_gradient(x_BLD, update_BMD) or torch.compiler.is_compiling():
        residual_BLD = torch.cat([history_BND, (noisy_BMD + update_BMD).type_as(x_BLD)], dim=1)
    else:
        residual_BLD = torch.empty_like(x_BLD)
        residual_BLD[:, :history_tokens] = history_BND
        torch.add(noisy_BMD, update_BMD, out=residual_BLD[:, history_tokens:])
    return residual_BLD, modulated_norm_ref(residual_BLD, history_tokens, shift_2D, scale_2D, eps)


@forward_only
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


@forward_only
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


@forward_only
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
