"""The VAE's RMSNorm over channels with SiLU, written behind the zero frames that the next causal convolution needs.

Legend: B batch, C channels, T frames, h/w height and width.
    y = x / max(|x|, 1e-12) * sqrt(C) * gamma          |x| the Euclidean norm over C
    silu: y * sigmoid(y)
    out[:, :, :past] = 0, out[:, :, past:] = the above
Works on contiguous and channels-last memory and returns the same format. With `past` = the convolution's own, the
convolution runs on the result as it is: no padded copy is made.
"""

import torch
import torch.nn.functional as F

from helios_kernels.backend import (
    block_of,
    constexpr,
    forward_only,
    jit,
    needs_gradient,
    on_device,
    tl,
    use_triton,
    warps_for,
)

TILE = 16384
"""Values that a program holds: 64 a thread at 8 warps."""


def channel_norm(
    x_BCThw: torch.Tensor, gamma: torch.Tensor, *, silu: bool, past: int = 0, reuse: bool = False
) -> torch.Tensor:
    """(B, C, T, h, w) to (B, C, past + T, h, w) in x's dtype and memory format.

    gamma: C values of any shape. reuse: x is not needed any more, so that a CPU may write over it.
    """
    if use_triton(x_BCThw, gamma):
        return channel_norm_triton(x_BCThw, gamma, silu=silu, past=past)
    return channel_norm_ref(x_BCThw, gamma, silu=silu, past=past, reuse=reuse)


def channel_norm_ref(
    x_BCThw: torch.Tensor, gamma: torch.Tensor, *, silu: bool, past: int = 0, reuse: bool = False
) -> torch.Tensor:
    """See `channel_norm`. Nothing but x is written over: fresh memory costs page faults."""
    wide = x_BCThw.float()
    scale = gamma.float().view(-1, 1, 1, 1)
    inverse = gamma.numel() ** 0.5 / torch.linalg.vector_norm(wide, dim=1, keepdim=True).clamp_min(1e-12)
    if needs_gradient(x_BCThw, gamma) or torch.compiler.is_compiling():
        y_BCThw = wide * inverse * scale
        y_BCThw = F.silu(y_BCThw) if silu else y_BCThw
    else:
        y_BCThw = torch.mul(wide, inverse, out=wide if reuse or wide is not x_BCThw else None).mul_(scale)
        y_BCThw = F.silu(y_BCThw, inplace=True) if silu else y_BCThw
    y_BCThw = y_BCThw.type_as(x_BCThw)
    return F.pad(y_BCThw, (0, 0, 0, 0, past, 0)) if past else y_BCThw


@forward_only
def channel_norm_triton(x_BCThw: torch.Tensor, gamma: torch.Tensor, *, silu: bool, past: int = 0) -> torch.Tensor:
    """See `channel_norm`."""
    batch, channels, frames, height, width = x_BCThw.shape
    assert gamma.numel() == channels
    channels_last = x_BCThw.stride(1) == 1 and channels > 1
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    if not _one_position_stride(x_BCThw):
        x_BCThw = x_BCThw.contiguous(memory_format=layout)
    out = torch.empty(
        batch, channels, past + frames, height, width, dtype=x_BCThw.dtype, device=x_BCThw.device, memory_format=layout
    )
    if out.numel() == 0:
        return out
    positions = (past + frames) * height * width
    block_c = block_of(channels)
    block_s = min(max(TILE // block_c, 16), 256, block_of(positions))
    with on_device(x_BCThw):
        _channel_norm_kernel[(-(-positions // block_s), batch)](
            x_BCThw,
            gamma.contiguous(),
            out,
            positions,
            past * height * width,
            channels**0.5,
            x_BCThw.stride(0),
            x_BCThw.stride(1),
            _position_stride(x_BCThw),
            out.stride(0),
            channels if channels_last else 1,
            CHANNELS=channels,
            CHANNELS_LAST=channels_last,
            SILU=silu,
            BLOCK_C=block_c,
            BLOCK_S=block_s,
            num_warps=warps_for(block_c * block_s // 2),
            enable_fp_fusion=True,
        )
    return out


def _position_stride(x_BCThw: torch.Tensor) -> int:
    """Distance between neighbouring positions: of the last dimension that has more than one."""
    return next((x_BCThw.stride(dim) for dim in (4, 3, 2) if x_BCThw.shape[dim] > 1), 1)


def _one_position_stride(x_BCThw: torch.Tensor) -> bool:
    """Whether (T, h, w) can be walked with a single stride, as in contiguous, channels-last and frame slices."""
    expected = _position_stride(x_BCThw)
    for dim in (4, 3, 2):
        size, stride = x_BCThw.shape[dim], x_BCThw.stride(dim)
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True


@jit()  # sizes are specialised: without a known alignment nothing of contiguous memory is read in vectors
def _channel_norm_kernel(  # type: ignore[no-untyped-def]
    x_ptr,
    gamma_ptr,
    out_ptr,
    positions,
    padding,
    root,
    x_batch_stride,
    x_channel_stride,
    x_position_stride,
    out_batch_stride,
    out_position_stride,
    CHANNELS: constexpr,
    CHANNELS_LAST: constexpr,
    SILU: constexpr,
    BLOCK_C: constexpr,
    BLOCK_S: constexpr,
):
    batch = tl.program_id(1).to(tl.int64)
    channel = tl.arange(0, BLOCK_C).to(tl.int64)[:, None]  # 64 bits: a chunk at 720p has more than 2^31 values
    position = (tl.program_id(0) * BLOCK_S + tl.arange(0, BLOCK_S)).to(tl.int64)[None, :]
    inside = (channel < CHANNELS) & (position < positions)
    # padding is read as zeros, and the norm of zeros is zero: nothing else writes the frames in front
    present = inside & (position >= padding)
    x_at = x_ptr + batch * x_batch_stride + channel * x_channel_stride + (position - padding) * x_position_stride
    x = tl.load(x_at, mask=present, other=0.0).to(tl.float32)
    gamma = tl.load(gamma_ptr + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)
    length = tl.sqrt(tl.sum(x * x, axis=0))[None, :]
    y = x / tl.maximum(length, 1e-12) * (gamma * root)
    if SILU:
        y = y * tl.sigmoid(y)
    out_channel_stride = 1 if CHANNELS_LAST else positions
    out_at = out_ptr + batch * out_batch_stride + channel * out_channel_stride + position * out_position_stride
    tl.store(out_at, y.to(out_ptr.dtype.element_ty), mask=inside)
