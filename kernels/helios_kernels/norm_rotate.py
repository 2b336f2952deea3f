"""RMSNorm over all heads, rotary embedding and history key scaling of queries and keys, in one pass.

Legend: B batch, L tokens (history first, then noisy), M <= L tokens that ask (the last ones), H heads, K head width,
D = H * K, P = K / 2 rotated pairs.
    y = x / sqrt(mean(x^2) + eps) * weight                       mean over D
    (y[2p] + i y[2p+1]) * table[token, p]                        for each head; the table holds cos + i sin
    keys of the first `history_tokens` tokens are multiplied by key_scale[head] after that
Queries and keys may be views of one fused projection: their batch and token strides are free.
"""

import torch
import torch.nn.functional as F

from helios_kernels.backend import (
    block_of,
    constexpr,
    dense,
    forward_only,
    jit,
    needs_gradient,
    on_device,
    tl,
    use_triton,
    warps_for,
)

QueriesKeys = tuple[torch.Tensor, torch.Tensor]


def norm_rotate(
    q_BMD: torch.Tensor,
    k_BLD: torch.Tensor,
    q_weight_D: torch.Tensor,
    k_weight_D: torch.Tensor,
    table_LP: torch.Tensor,
    heads: int,
    eps: float,
    history_tokens: int = 0,
    key_scale_H: torch.Tensor | None = None,
) -> QueriesKeys:
    """Queries (B, M, H, K) and keys (B, L, H, K) in their dtype, contiguous.

    table_LP: complex64 (L, P), or its cosines and sines as float32 (L, P, 2). key_scale_H: float32, one factor for
    each head or a single one; None for 1.
    """
    kernel = use_triton(k_BLD, q_BMD, q_weight_D, k_weight_D, key_scale_H)
    path = norm_rotate_triton if kernel else norm_rotate_ref
    return path(q_BMD, k_BLD, q_weight_D, k_weight_D, table_LP, heads, eps, history_tokens, key_scale_H)


def norm_rotate_ref(
    q_BMD: torch.Tensor,
    k_BLD: torch.Tensor,
    q_weight_D: torch.Tensor,
    k_weight_D: torch.Tensor,
    table_LP: torch.Tensor,
    heads: int,
    eps: float,
    history_tokens: int = 0,
    key_scale_H: torch.Tensor | None = None,
) -> QueriesKeys:
    """See `norm_rotate`."""
    q_BMHK = _rotated_ref(q_BMD, q_weight_D, table_LP[k_BLD.shape[1] - q_BMD.shape[1] :], heads, eps)
    k_BLHK = _rotated_ref(k_BLD, k_weight_D, table_LP, heads, eps)
    if key_scale_H is not None:
        k_BLHK = _scaled_ref(k_BLHK, key_scale_H, history_tokens)
    return q_BMHK.type_as(q_BMD), k_BLHK.type_as(k_BLD)


def _rotated_ref(
    x_BLD: torch.Tensor, weight_D: torch.Tensor, table_LP: torch.Tensor, heads: int, eps: float
) -> torch.Tensor:
    y_BLD = F.rms_norm(x_BLD.float(), x_BLD.shape[-1:], weight_D.float(), eps)
    y_BLHP2 = y_BLD.unflatten(-1, (heads, -1, 2))
    if table_LP.is_complex():  # several times faster on a CPU; torch.compile has no complex numbers
        return torch.view_as_real(torch.view_as_complex(y_BLHP2) * table_LP[:, None]).flatten(-2)
    (even, odd), (cos, sin) = y_BLHP2.unbind(-1), table_LP[:, None].unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def _scaled_ref(k_BLHK: torch.Tensor, key_scale_H: torch.Tensor, history_tokens: int) -> torch.Tensor:
    history_BNHK, noisy_BMHK = k_BLHK[:, :history_tokens], k_BLHK[:, history_tokens:]
    if needs_gradient(k_BLHK, key_scale_H) or torch.compiler.is_compiling():
        return torch.cat([history_BNHK * key_scale_H[:, None], noisy_BMHK], dim=1)
    history_BNHK *= key_scale_H[:, None]
    return k_BLHK


@forward_only
def norm_rotate_triton(
    q_BMD: torch.Tensor,
    k_BLD: torch.Tensor,
    q_weight_D: torch.Tensor,
    k_weight_D: torch.Tensor,
    table_LP: torch.Tensor,
    heads: int,
    eps: float,
    history_tokens: int = 0,
    key_scale_H: torch.Tensor | None = None,
) -> QueriesKeys:
    """See `norm_rotate`."""
    (batch, tokens, dim), asking = k_BLD.shape, q_BMD.shape[1]
    width = dim // heads
    table_LP2 = (torch.view_as_real(table_LP) if table_LP.is_complex() else table_LP).contiguous()
    assert q_BMD.shape == (batch, asking, dim)
    assert asking <= tokens
    assert table_LP2.shape == (tokens, width // 2, 2)
    assert table_LP2.dtype == torch.float32
    assert q_weight_D.shape == k_weight_D.shape == (dim,)
    assert key_scale_H is None or key_scale_H.shape in ((1,), (heads,))
    q_BMD, k_BLD = dense(q_BMD), dense(k_BLD)
    q_out, k_out = (torch.empty(*x.shape[:2], heads, width, dtype=x.dtype, device=x.device) for x in (q_BMD, k_BLD))
    if k_out.numel() == 0:
        return q_out, k_out
    block_h, block_k = block_of(heads), block_of(width)
    with on_device(k_BLD):
        _norm_rotate_kernel[(batch * tokens,)](
            q_BMD,
            k_BLD,
            q_weight_D.contiguous(),
            k_weight_D.contiguous(),
            table_LP2,
            None if key_scale_H is None else key_scale_H.contiguous(),
            q_out,
            k_out,
            tokens,
            tokens - asking,
            history_tokens,
            q_BMD.stride(0),
            q_BMD.stride(1),
            k_BLD.stride(0),
            k_BLD.stride(1),
            eps,
            HEADS=heads,
            WIDTH=width,
            SCALE_STRIDE=0 if key_scale_H is None or len(key_scale_H) == 1 else 1,
            BLOCK_H=block_h,
            BLOCK_K=block_k,
            num_warps=warps_for(block_h * block_k),
            enable_fp_fusion=True,
        )
    return q_out, k_out


@jit()
def _rotated(x, weight, cos, sin, inside, eps, HEADS: constexpr, WIDTH: constexpr):  # type: ignore[no-untyped-def]
    """Norm and rotation of one token's (heads, head width) tile."""
    x = tl.where(inside, x.to(tl.float32), 0.0)
    squares = tl.sum(tl.sum(x * x, axis=1), axis=0)
    y = x * tl.rsqrt(squares / (HEADS * WIDTH) + eps) * weight.to(tl.float32)
    even, odd = tl.split(tl.reshape(y, (y.shape[0], y.shape[1] // 2, 2)))
    rotated = tl.join(even * cos - odd * sin, even * sin + odd * cos)
    return tl.reshape(rotated, (y.shape[0], y.shape[1]))


@jit(do_not_specialize=["tokens", "first", "history_tokens"])
def _norm_rotate_kernel(  # type: ignore[no-untyped-def]
    q_ptr,
    k_ptr,
    q_weight_ptr,
    k_weight_ptr,
    table_ptr,
    key_scale_ptr,
    q_out_ptr,
    k_out_ptr,
    tokens,
    first,
    history_tokens,
    q_batch_stride,
    q_token_stride,
    k_batch_stride,
    k_token_stride,
    eps,
    HEADS: constexpr,
    WIDTH: constexpr,
    SCALE_STRIDE: constexpr,
    BLOCK_H: constexpr,
    BLOCK_K: constexpr,
):
    index = tl.program_id(0).to(tl.int64)
    batch = index // tokens
    token = index % tokens
    head = tl.arange(0, BLOCK_H)[:, None]
    column = tl.arange(0, BLOCK_K)[None, :]
    inside = (head < HEADS) & (column < WIDTH)
    at = head * WIDTH + column

    # the table's row is cos, sin, cos, sin, ...: one contiguous read, and the same for all heads
    pairs = tl.arange(0, BLOCK_K)
    table = tl.load(table_ptr + token * WIDTH + pairs, mask=pairs < WIDTH, other=0.0)
    cos, sin = tl.split(tl.reshape(table, (1, BLOCK_K // 2, 2)))

    k = tl.load(k_ptr + batch * k_batch_stride + token * k_token_stride + at, mask=inside, other=0.0)
    k_weight = tl.load(k_weight_ptr + at, mask=inside, other=0.0)
    k = _rotated(k, k_weight, cos, sin, inside, eps, HEADS, WIDTH)
    if key_scale_ptr is not None:
        scaled = head < tl.where(token < history_tokens, HEADS, 0)
        k *= tl.load(key_scale_ptr + head * SCALE_STRIDE, mask=scaled, other=1.0).to(tl.float32)
    tl.store(k_out_ptr + index * (HEADS * WIDTH) + at, k.to(k_out_ptr.dtype.element_ty), mask=inside)

    asks = (head < tl.where(token >= first, HEADS, 0)) & (column < WIDTH)
    asking = token - first
    q = tl.load(q_ptr + batch * q_batch_stride + asking * q_token_stride + at, mask=asks, other=0.0)
    q_weight = tl.load(q_weight_ptr + at, mask=asks, other=0.0)
    q = _rotated(q, q_weight, cos, sin, inside, eps, HEADS, WIDTH)
    q_at = q_out_ptr + (batch * (tokens - first) + asking) * (HEADS * WIDTH) + at
    tl.store(q_at, q.to(q_out_ptr.dtype.element_ty), mask=asks)
