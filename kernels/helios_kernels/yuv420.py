"""Frames to planar YUV 4:2:0, BT.709 limited range: what the H.264 encoder takes, at half the bytes of RGB.

Legend: T frames, H/W height and width (even). Per frame the planes Y (H, W), U and V (H/2, W/2) follow each other,
which numpy and PyAV see as (3H/2, W) (`VideoFrame.from_ndarray(..., format="yuv420p")`).
    y = Kr r + Kg g + Kb b, Kr = 0.2126, Kb = 0.0722, Kg = 1 - Kr - Kb
    Y = 16 + 219 y / 255;   U = 128 + 224 (b - y) / (2 (1 - Kb)) / 255;   V = 128 + 224 (r - y) / (2 (1 - Kr)) / 255
Chroma is taken of the mean of two columns and of four rows weighted 1 3 3 1 (edges repeated): libswscale's default
filter, measured from its impulse response. Levels are rounded half up.
"""

import torch

from helios_kernels.backend import constexpr, forward_only, jit, on_device, tl, use_triton
from helios_kernels.rgb import level, rgb_frames_ref

BLOCK = 256
KR, KB = 0.2126, 0.0722
RGB_TO_YUV = (
    (219 / 255 * KR, 219 / 255 * (1 - KR - KB), 219 / 255 * KB),
    (-112 / 255 * KR / (1 - KB), -112 / 255 * (1 - KR - KB) / (1 - KB), 112 / 255),
    (112 / 255, -112 / 255 * (1 - KR - KB) / (1 - KR), -112 / 255 * KB / (1 - KR)),
)


def yuv420_frames(frames: torch.Tensor) -> torch.Tensor:
    """(T, 3H/2, W) uint8 planes of uint8 RGB (T, H, W, 3), or of pixels in [-1, 1] (3, T, H, W), any strides.

    Pixels are rounded to RGB levels first, so both ways give the same planes.
    """
    return yuv420_frames_triton(frames) if use_triton(frames) else yuv420_frames_ref(frames)


def yuv420_frames_ref(frames: torch.Tensor) -> torch.Tensor:
    """See `yuv420_frames`."""
    rgb = (frames if frames.dtype == torch.uint8 else rgb_frames_ref(frames)).float()  # T H W 3
    to_yuv = torch.tensor(RGB_TO_YUV, device=rgb.device)
    luma = rgb @ to_yuv[0] + 16.0
    pairs = rgb.unflatten(2, (-1, 2)).mean(3)
    rows = torch.cat([pairs[:, :1], pairs, pairs[:, -1:]], dim=1)
    near, far = rows[:, 1:-1:2] + rows[:, 2:-1:2], rows[:, :-3:2] + rows[:, 3::2]
    chroma = (3.0 * near + far) / 8.0 @ to_yuv[1:].T + 128.0  # T H/2 W/2 2
    planes = [luma.flatten(1), chroma[..., 0].flatten(1), chroma[..., 1].flatten(1)]
    return torch.cat(planes, dim=1).add_(0.5).to(torch.uint8).view(len(rgb), -1, rgb.shape[2])


@forward_only
def yuv420_frames_triton(frames: torch.Tensor) -> torch.Tensor:
    """See `yuv420_frames`."""
    rgb = frames if frames.dtype == torch.uint8 else frames.permute(1, 2, 3, 0)
    count, height, width, colours = rgb.shape
    assert colours == 3
    assert height % 2 == width % 2 == 0, "4:2:0 halves both sides"
    out = torch.empty(count, height * 3 // 2, width, dtype=torch.uint8, device=rgb.device)
    if out.numel() == 0:
        return out
    blocks = count * (height // 2) * (width // 2)
    (y_r, y_g, y_b), (u_r, u_g, u_b), (v_r, v_g, v_b) = RGB_TO_YUV
    with on_device(rgb):
        _yuv420_kernel[(-(-blocks // BLOCK),)](
            rgb,
            out,
            blocks,
            height,
            width,
            *rgb.stride(),
            *(y_r, y_g, y_b, u_r, u_g, u_b, v_r, v_g, v_b),
            FROM_PIXELS=rgb.dtype != torch.uint8,
            BLOCK=BLOCK,
            enable_fp_fusion=False,  # as in `rgb`: the same levels
        )
    return out


@jit()
def _yuv420_kernel(  # type: ignore[no-untyped-def]
    rgb_ptr,
    out_ptr,
    blocks,
    height,
    width,
    frame_stride,
    row_stride,
    column_stride,
    colour_stride,
    y_r,
    y_g,
    y_b,
    u_r,
    u_g,
    u_b,
    v_r,
    v_g,
    v_b,
    FROM_PIXELS: constexpr,
    BLOCK: constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # one chroma position: 2 x 2 pixels
    inside = at < blocks
    half_width, half_height = width // 2, height // 2
    column, row = at % half_width, (at // half_width) % half_height
    frame = at // (half_width * half_height)
    plane = out_ptr + frame * (height * width * 3 // 2)

    red = tl.zeros((BLOCK,), dtype=tl.float32)
    green = tl.zeros((BLOCK,), dtype=tl.float32)
    blue = tl.zeros((BLOCK,), dtype=tl.float32)
    for tap in tl.static_range(4):
        line = tl.minimum(tl.maximum(2 * row - 1 + tap, 0), height - 1)
        for side in tl.static_range(2):
            x = 2 * column + side
            source = rgb_ptr + frame * frame_stride + line * row_stride + x * column_stride
            r = tl.load(source, mask=inside, other=0).to(tl.float32)
            g = tl.load(source + colour_stride, mask=inside, other=0).to(tl.float32)
            b = tl.load(source + 2 * colour_stride, mask=inside, other=0).to(tl.float32)
            if FROM_PIXELS:
                r, g, b = level(r), level(g), level(b)
            if tap == 1 or tap == 2:  # the block's own rows
                luma = r * y_r + g * y_g + b * y_b + 16.5
                tl.store(plane + line * width + x, luma.to(tl.int32).to(tl.uint8), mask=inside)
                red, green, blue = red + 3.0 * r, green + 3.0 * g, blue + 3.0 * b
            else:
                red, green, blue = red + r, green + g, blue + b
    red, green, blue = red / 16.0, green / 16.0, blue / 16.0
    chroma = plane + height * width + row * half_width + column
    u = red * u_r + green * u_g + blue * u_b + 128.5
    v = red * v_r + green * v_g + blue * v_b + 128.5
    tl.store(chroma, u.to(tl.int32).to(tl.uint8), mask=inside)
    tl.store(chroma + half_height * half_width, v.to(tl.int32).to(tl.uint8), mask=inside)
