"""RMSNorm over the width: the norm of cross-attention queries and keys (over all heads at once).

Legend: B batch, L tokens, D width = heads * head width.
    x / sqrt(mean(x^2) + eps) * weight         mean over D
Self-attention has it fused with the rotation: `norm_rotate`.
"""

import torch
import torch.nn.functional as F

from helios_kernels.backend import block_of, constexpr, dense, forward_only, jit, on_device, tl, use_triton, warps_for


def rms_norm(x_BLD: torch.Tensor, weight_D: torch.Tensor, eps: float) -> torch.Tensor:
    """(B, L, D) in x's dtype, contiguous; batch and token strides of x are free."""
    return rms_norm_triton(x_BLD, weight_D, eps) if use_triton(x_BLD, weight_D) else rms_norm_ref(x_BLD, weight_D, eps)


def rms_norm_ref(x_BLD: torch.Tensor, weight_D: torch.Tensor, eps: float) -> torch.Tensor:
    """See `rms_norm`."""
    return F.rms_norm(x_BLD.float(), x_BLD.shape[-1:], weight_D.float(), eps).type_as(x_BLD)


@forward_only
def rms_norm_triton(x_BLD: torch.Tensor, weight_D: torch.Tensor, eps: float) -> torch.Tensor:
    """See `rms_norm`."""
    batch, tokens, width = x_BLD.shape
    assert weight_D.shape == (width,)
    x_BLD = dense(x_BLD)
    out_BLD = torch.empty(x_BLD.shape, dtype=x_BLD.dtype, device=x_BLD.device)
    if out_BLD.numel() == 0:
        return out_BLD
    block = block_of(width)
    with on_device(x_BLD):
        _rms_norm_kernel[(batch * tokens,)](
            x_BLD,
            weight_D.contiguous(),
            out_BLD,
            tokens,
            x_BLD.stride(0),
            x_BLD.stride(1),
            eps,
            WIDTH=width,
            BLOCK=block,
            num_warps=warps_for(block),
            enable_fp_fusion=True,
        )
    return out_BLD


@jit(do_not_specialize=["tokens"])
def _rms_norm_kernel(  # type: ignore[no-untyped-def]
    x_ptr,
    weight_ptr,
    out_ptr,
    tokens,
    x_batch_stride,
    x_token_stride,
    eps,
    WIDTH: constexpr,
    BLOCK: constexpr,
):
    index = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    x_at = x_ptr + (index // tokens) * x_batch_stride + (index % tokens) * x_token_stride + column
    x = tl.load(x_at, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    y = x * tl.rsqrt(tl.sum(x * x, axis=0) / WIDTH + eps) * weight
    tl.store(out_ptr + index * WIDTH + column, y.to(out_ptr.dtype.element_ty), mask=inside)
