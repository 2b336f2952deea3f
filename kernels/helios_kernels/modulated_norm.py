"""LayerNorm with one of two modulation rows picked by the token's position, or with an affine weight and bias.

Legend: B batch, L tokens (history first, then noisy), D width.
    y = (x - mean(x)) / sqrt(var(x) + eps)           mean and (biased) variance over D
    modulated: y * (1 + scale[row]) + shift[row]     row 0 for the first `history_tokens` tokens, row 1 for the rest
    affine:    y * weight + bias
A row is read once and kept in registers between mean, variance and result.
"""

import torch
import torch.nn.functional as F

from helios_kernels.backend import block_of, constexpr, dense, forward_only, jit, on_device, tl, use_triton, warps_for
from helios_kernels.rows import add_product_by_row


def modulated_norm(
    x_BLD: torch.Tensor, history_tokens: int, shift_2D: torch.Tensor, scale_2D: torch.Tensor, eps: float
) -> torch.Tensor:
    """LayerNorm(x) * (1 + scale[row]) + shift[row]: (B, L, D) in x's dtype, contiguous."""
    if use_triton(x_BLD, shift_2D, scale_2D):
        return modulated_norm_triton(x_BLD, history_tokens, shift_2D, scale_2D, eps)
    return modulated_norm_ref(x_BLD, history_tokens, shift_2D, scale_2D, eps)


def affine_norm(x_BLD: torch.Tensor, weight_D: torch.Tensor, bias_D: torch.Tensor, eps: float) -> torch.Tensor:
    """LayerNorm(x) * weight + bias: (B, L, D) in x's dtype, contiguous."""
    if use_triton(x_BLD, weight_D, bias_D):
        return affine_norm_triton(x_BLD, weight_D, bias_D, eps)
    return affine_norm_ref(x_BLD, weight_D, bias_D, eps)


def modulated_norm_ref(
    x_BLD: torch.Tensor, history_tokens: int, shift_2D: torch.Tensor, scale_2D: torch.Tensor, eps: float
) -> torch.Tensor:
    """See `modulated_norm`."""
    y_BLD = F.layer_norm(x_BLD.float(), x_BLD.shape[-1:], eps=eps)
    factor_2D = 1.0 + scale_2D.float()
    return add_product_by_row(shift_2D.float(), y_BLD, factor_2D, history_tokens, reuse=y_BLD).type_as(x_BLD)


def affine_norm_ref(x_BLD: torch.Tensor, weight_D: torch.Tensor, bias_D: torch.Tensor, eps: float) -> torch.Tensor:
    """See `affine_norm`."""
    return F.layer_norm(x_BLD.float(), x_BLD.shape[-1:], weight_D.float(), bias_D.float(), eps).type_as(x_BLD)


@forward_only
def modulated_norm_triton(
    x_BLD: torch.Tensor, history_tokens: int, shift_2D: torch.Tensor, scale_2D: torch.Tensor, eps: float
) -> torch.Tensor:
    """See `modulated_norm`."""
    assert shift_2D.shape == scale_2D.shape == (2, x_BLD.shape[-1]), "one row for history, one for noisy tokens"
    return _launch(x_BLD, history_tokens, dense(shift_2D), dense(scale_2D), eps, one_plus=True)


@forward_only
def affine_norm_triton(x_BLD: torch.Tensor, weight_D: torch.Tensor, bias_D: torch.Tensor, eps: float) -> torch.Tensor:
    """See `affine_norm`."""
    assert weight_D.shape == bias_D.shape == x_BLD.shape[-1:]
    bias_2D, weight_2D = (row_D.contiguous().expand(2, -1) for row_D in (bias_D, weight_D))
    return _launch(x_BLD, 0, bias_2D, weight_2D, eps, one_plus=False)


def _launch(
    x_BLD: torch.Tensor,
    history_tokens: int,
    shift_2D: torch.Tensor,
    scale_2D: torch.Tensor,
    eps: float,
    *,
    one_plus: bool,
) -> torch.Tensor:
    batch, tokens, width = x_BLD.shape
    x_BLD = dense(x_BLD)
    out_BLD = torch.empty(x_BLD.shape, dtype=x_BLD.dtype, device=x_BLD.device)
    if out_BLD.numel() == 0:
        return out_BLD
    block = block_of(width)
    with on_device(x_BLD):
        _modulated_norm_kernel[(batch * tokens,)](
            x_BLD,
            shift_2D,
            scale_2D,
            out_BLD,
            tokens,
            history_tokens,
            x_BLD.stride(0),
            x_BLD.stride(1),
            shift_2D.stride(0),
            scale_2D.stride(0),
            eps,
            WIDTH=width,
            ONE_PLUS=one_plus,
            BLOCK=block,
            num_warps=warps_for(block),
            enable_fp_fusion=True,
        )
    return out_BLD


@jit()
def modulated(x, shift_at, scale_at, inside, eps, WIDTH: constexpr, ONE_PLUS: constexpr):  # type: ignore[no-untyped-def]
    """The norm and modulation of a token's float32 features, which are 0 outside of WIDTH."""
    centred = tl.where(inside, x - tl.sum(x, axis=0) / WIDTH, 0.0)
    y = centred * tl.rsqrt(tl.sum(centred * centred, axis=0) / WIDTH + eps)
    scale = tl.load(scale_at, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(shift_at, mask=inside, other=0.0).to(tl.float32)
    if ONE_PLUS:
        scale += 1.0
    return y * scale + shift


@jit(do_not_specialize=["tokens", "history_tokens"])  # they differ per request: no recompilation for a multiple of 16
def _modulated_norm_kernel(  # type: ignore[no-untyped-def]
    x_ptr,
    shift_ptr,
    scale_ptr,
    out_ptr,
    tokens,
    history_tokens,
    x_batch_stride,
    x_token_stride,
    shift_row_stride,
    scale_row_stride,
    eps,
    WIDTH: constexpr,
    ONE_PLUS: constexpr,
    BLOCK: constexpr,
):
    index = tl.program_id(0).to(tl.int64)  # 64 bits: tokens x width passes 2^31 at long histories
    token = index % tokens
    row = tl.where(token < history_tokens, 0, 1)
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH

    x_at = x_ptr + (index // tokens) * x_batch_stride + token * x_token_stride + column
    x = tl.load(x_at, mask=inside, other=0.0).to(tl.float32)
    shift_at, scale_at = shift_ptr + row * shift_row_stride + column, scale_ptr + row * scale_row_stride + column
    y = modulated(x, shift_at, scale_at, inside, eps, WIDTH, ONE_PLUS)
    tl.store(out_ptr + index * WIDTH + column, y.to(out_ptr.dtype.element_ty), mask=inside)
