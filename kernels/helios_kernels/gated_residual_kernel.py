"""The Triton kernel behind the three functions of `gated_residual`: one pass over x and the update."""

import torch

from helios_kernels.backend import block_of, constexpr, dense, jit, on_device, tl, warps_for
from helios_kernels.modulated_norm import modulated


def launch(
    x_BLD: torch.Tensor,
    update: torch.Tensor,
    history_tokens: int,
    gate_2D: torch.Tensor | None,
    shift_2D: torch.Tensor,
    scale_2D: torch.Tensor,
    *,
    update_from: int = 0,
    norm_from: int = 0,
    eps: float,
    one_plus: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The residual (B, L, D) and the norm of the tokens from `norm_from` on.

    update: of the tokens from `update_from` on. one_plus: multiplies by 1 + scale instead of scale.
    """
    batch, tokens, width = x_BLD.shape
    assert update.shape == (batch, tokens - update_from, width)
    rows = [row for row in (gate_2D, shift_2D, scale_2D) if row is not None]
    assert all(row.shape == (2, width) for row in rows), "one row for history, one for noisy tokens"
    x_BLD, update = dense(x_BLD), dense(update)
    gate_2D = None if gate_2D is None else dense(gate_2D)
    shift_2D, scale_2D = dense(shift_2D), dense(scale_2D)
    residual_BLD = torch.empty(x_BLD.shape, dtype=x_BLD.dtype, device=x_BLD.device)
    normed = torch.empty_like(residual_BLD[:, norm_from:])
    if residual_BLD.numel() == 0:
        return residual_BLD, normed
    block = block_of(width)
    with on_device(x_BLD):
        _gated_residual_kernel[(batch * tokens,)](
            x_BLD,
            update,
            gate_2D,
            shift_2D,
            scale_2D,
            residual_BLD,
            normed,
            tokens,
            history_tokens,
            update_from,
            norm_from,
            x_BLD.stride(0),
            x_BLD.stride(1),
            update.stride(0),
            update.stride(1),
            0 if gate_2D is None else gate_2D.stride(0),
            shift_2D.stride(0),
            scale_2D.stride(0),
            eps,
            WIDTH=width,
            ONE_PLUS=one_plus,
            BLOCK=block,
            num_warps=warps_for(block),
            enable_fp_fusion=True,
        )
    return residual_BLD, normed


@jit(do_not_specialize=["tokens", "history_tokens", "update_from", "norm_from"])
def _gated_residual_kernel(  # type: ignore[no-untyped-def]
    x_ptr,
    update_ptr,
    gate_ptr,
    shift_ptr,
    scale_ptr,
    residual_ptr,
    normed_ptr,
    tokens,
    history_tokens,
    update_from,
    norm_from,
    x_batch_stride,
    x_token_stride,
    update_batch_stride,
    update_token_stride,
    gate_row_stride,
    shift_row_stride,
    scale_row_stride,
    eps,
    WIDTH: constexpr,
    ONE_PLUS: constexpr,
    BLOCK: constexpr,
):
    index = tl.program_id(0).to(tl.int64)  # 64 bits: tokens x width passes 2^31 at long histories
    batch = index // tokens
    token = index % tokens
    row = tl.where(token < history_tokens, 0, 1)
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH

    x = tl.load(x_ptr + batch * x_batch_stride + token * x_token_stride + column, mask=inside, other=0.0)
    update_at = update_ptr + batch * update_batch_stride + (token - update_from) * update_token_stride + column
    updated = column < tl.where(token >= update_from, WIDTH, 0)
    update = tl.load(update_at, mask=updated, other=0.0).to(tl.float32)
    if gate_ptr is not None:
        update *= tl.load(gate_ptr + row * gate_row_stride + column, mask=inside, other=0.0).to(tl.float32)
    residual = (x.to(tl.float32) + update).to(residual_ptr.dtype.element_ty)
    tl.store(residual_ptr + index * WIDTH + column, residual, mask=inside)

    shift_at, scale_at = shift_ptr + row * shift_row_stride + column, scale_ptr + row * scale_row_stride + column
    y = modulated(residual.to(tl.float32), shift_at, scale_at, inside, eps, WIDTH, ONE_PLUS)
    normed_at = normed_ptr + (batch * (tokens - norm_from) + token - norm_from) * WIDTH + column
    asked = column < tl.where(token >= norm_from, WIDTH, 0)
    tl.store(normed_at, y.to(normed_ptr.dtype.element_ty), mask=asked)
