"""The step of a step-distilled model: x0 from the predicted flow velocity, re-noised with the stage's own start.

    x0 = latents - sigma * velocity
    next = x0 + following * (start - x0)          following = 0: x0 itself
Source: `HeliosDMDScheduler.step` (diffusers).
"""

import torch

from helios_kernels.backend import constexpr, forward_only, jit, on_device, tl, use_triton

BLOCK = 1024


def renoise(
    latents: torch.Tensor, velocity: torch.Tensor, start: torch.Tensor, sigma: float, following: float
) -> torch.Tensor:
    """Tensors of one shape to the latents at noise level `following`, float32. sigma: the level of `latents`."""
    path = renoise_triton if use_triton(latents, velocity, start) else renoise_ref
    return path(latents, velocity, start, sigma, following)


def renoise_ref(
    latents: torch.Tensor, velocity: torch.Tensor, start: torch.Tensor, sigma: float, following: float
) -> torch.Tensor:
    """See `renoise`."""
    x0 = torch.sub(latents.float(), velocity.float(), alpha=sigma)
    return torch.lerp(x0, start.float(), following) if following else x0


@forward_only
def renoise_triton(
    latents: torch.Tensor, velocity: torch.Tensor, start: torch.Tensor, sigma: float, following: float
) -> torch.Tensor:
    """See `renoise`."""
    assert latents.shape == velocity.shape == start.shape
    out = torch.empty(latents.shape, dtype=torch.float32, device=latents.device)
    count = out.numel()
    if count == 0:
        return out
    with on_device(latents):
        _renoise_kernel[(-(-count // BLOCK),)](
            latents.contiguous(),
            velocity.contiguous(),
            start.contiguous(),
            out,
            count,
            float(sigma),  # an int would be compiled in
            float(following),
            RENOISED=bool(following),
            BLOCK=BLOCK,
            enable_fp_fusion=True,
        )
    return out


@jit()
def _renoise_kernel(  # type: ignore[no-untyped-def]
    latents_ptr,
    velocity_ptr,
    start_ptr,
    out_ptr,
    count,
    sigma,
    following,
    RENOISED: constexpr,
    BLOCK: constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    latents = tl.load(latents_ptr + at, mask=inside, other=0.0).to(tl.float32)
    velocity = tl.load(velocity_ptr + at, mask=inside, other=0.0).to(tl.float32)
    result = latents - sigma * velocity
    if RENOISED:
        start = tl.load(start_ptr + at, mask=inside, other=0.0).to(tl.float32)
        result += following * (start - result)
    tl.store(out_ptr + at, result, mask=inside)
