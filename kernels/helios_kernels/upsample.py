"""From one pyramid stage to the next: nearest-neighbour x2 in height and width, mixed with block noise.

Legend: B batch, C channels, T frames, h/w latent height and width; H = 2h, W = 2w.
    out[..., y, x] = alpha * latents[..., y // 2, x // 2] + beta * noise[..., y, x]
"""

import torch

from helios_kernels.backend import constexpr, forward_only, jit, on_device, tl, use_triton

BLOCK = 1024


def upsample_renoise(latents_BCThw: torch.Tensor, noise_BCTHW: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """(B, C, T, h, w) and noise of twice the height and width to (B, C, T, H, W), in the latents' dtype."""
    path = upsample_renoise_triton if use_triton(latents_BCThw, noise_BCTHW) else upsample_renoise_ref
    return path(latents_BCThw, noise_BCTHW, alpha, beta)


def upsample_renoise_ref(
    latents_BCThw: torch.Tensor, noise_BCTHW: torch.Tensor, alpha: float, beta: float
) -> torch.Tensor:
    """See `upsample_renoise`."""
    repeated = latents_BCThw.float().repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    return (alpha * repeated + beta * noise_BCTHW.float()).type_as(latents_BCThw)


@forward_only
def upsample_renoise_triton(
    latents_BCThw: torch.Tensor, noise_BCTHW: torch.Tensor, alpha: float, beta: float
) -> torch.Tensor:
    """See `upsample_renoise`."""
    *outer, height, width = latents_BCThw.shape
    assert noise_BCTHW.shape == (*outer, 2 * height, 2 * width)
    out = torch.empty(noise_BCTHW.shape, dtype=latents_BCThw.dtype, device=latents_BCThw.device)
    count = out.numel()
    if count == 0:
        return out
    with on_device(latents_BCThw):
        _upsample_kernel[(-(-count // BLOCK),)](
            latents_BCThw.contiguous(),
            noise_BCTHW.contiguous(),
            out,
            count,
            width,
            float(alpha),
            float(beta),
            BLOCK=BLOCK,
            enable_fp_fusion=True,
        )
    return out


@jit()
def _upsample_kernel(  # type: ignore[no-untyped-def]
    latents_ptr,
    noise_ptr,
    out_ptr,
    count,
    width,
    alpha,
    beta,
    BLOCK: constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    row = at // (2 * width)
    # rows of all frames in one sequence: 2h is even, so halving a row's number never mixes two frames
    source = (row // 2) * width + (at % (2 * width)) // 2
    latents = tl.load(latents_ptr + source, mask=inside, other=0.0).to(tl.float32)
    noise = tl.load(noise_ptr + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, (alpha * latents + beta * noise).to(out_ptr.dtype.element_ty), mask=inside)
