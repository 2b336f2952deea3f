"""Decoded pixels to 8-bit RGB frames.

Legend: T frames, H/W height and width.
    rgb[t, y, x, c] = round((clamp(pixels[c, t, y, x], -1, 1) + 1) * 127.5)        halves to even, as torch rounds
"""

import torch

from helios_kernels.backend import constexpr, forward_only, jit, on_device, tl, use_triton

BLOCK = 1024


def rgb_frames(pixels_3THW: torch.Tensor) -> torch.Tensor:
    """Pixels in [-1, 1], (3, T, H, W), to (T, H, W, 3) uint8, contiguous. Strides are free."""
    return rgb_frames_triton(pixels_3THW) if use_triton(pixels_3THW) else rgb_frames_ref(pixels_3THW)


def rgb_frames_ref(pixels_3THW: torch.Tensor) -> torch.Tensor:
    """See `rgb_frames`."""
    levels = pixels_3THW.float().clamp(-1.0, 1.0).add_(1.0).mul_(127.5).round_().to(torch.uint8)
    return levels.permute(1, 2, 3, 0).contiguous()


@forward_only
def rgb_frames_triton(pixels_3THW: torch.Tensor) -> torch.Tensor:
    """See `rgb_frames`."""
    colours, frames, height, width = pixels_3THW.shape
    assert colours == 3
    out_THW3 = torch.empty(frames, height, width, 3, dtype=torch.uint8, device=pixels_3THW.device)
    if out_THW3.numel() == 0:
        return out_THW3
    with on_device(pixels_3THW):
        _rgb_kernel[(-(-frames * height * width // BLOCK),)](
            pixels_3THW,
            out_THW3,
            frames * height * width,
            height,
            width,
            *pixels_3THW.stride(),
            BLOCK=BLOCK,
            enable_fp_fusion=False,  # a fused multiply-add rounds the levels differently
        )
    return out_THW3


@jit()
def level(pixel):  # type: ignore[no-untyped-def]
    """A pixel's level, 0 to 255, as float32."""
    scaled = (tl.minimum(tl.maximum(pixel.to(tl.float32), -1.0), 1.0) + 1.0) * 127.5
    return (scaled + 12582912.0) - 12582912.0  # 1.5 * 2^23: float32 has no fraction there, so the sum rounds to even


@jit()
def _rgb_kernel(  # type: ignore[no-untyped-def]
    pixels_ptr,
    out_ptr,
    count,
    height,
    width,
    colour_stride,
    frame_stride,
    row_stride,
    column_stride,
    BLOCK: constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    row = at // width
    source = (row // height) * frame_stride + (row % height) * row_stride + (at % width) * column_stride
    for colour in tl.static_range(3):
        pixel = tl.load(pixels_ptr + source + colour * colour_stride, mask=inside, other=0.0)
        tl.store(out_ptr + at * 3 + colour, level(pixel).to(tl.int32).to(tl.uint8), mask=inside)
