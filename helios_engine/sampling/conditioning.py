"""Starts from an image or a clip: its latents become the anchor and the history, slightly noised.

The VAE encoder gives a distribution; what is drawn from it, and the noise added, comes from the request's generator
before any chunk's noise, in the reference's order. Source: `prepare_image_latents`, `prepare_video_latents` and
`__call__` of the Helios pipelines (diffusers).
"""

from dataclasses import replace

import torch

from helios_engine.request import LATENT_FRAMES_PER_CHUNK, GenerationRequest
from helios_engine.sampling.state import DenoiseState
from helios_engine.vae.conditions import Condition, ImageCondition, VideoCondition


def conditioned_state(request: GenerationRequest, condition: Condition) -> DenoiseState:
    """The state before the first chunk of an image- or video-to-video request."""
    state = DenoiseState.initial(request)
    generator = state.generator()
    if isinstance(condition, ImageCondition):
        anchor, latents = _image(request, condition, generator)
    else:
        anchor, latents = _video(request, condition, generator)
    frames = state.history.shape[2]
    return replace(
        state,
        history=torch.cat([state.history, latents], dim=2)[:, :, -frames:].contiguous(),
        anchor=anchor if request.keep_first_frame else state.anchor,
        rng_state=generator.get_state(),
    )


def _image(
    request: GenerationRequest, condition: ImageCondition, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    one = condition.image.mean.shape
    image = condition.image.sample(torch.randn(one, generator=generator))
    still = condition.still.sample(_chunk_noise(one, generator)[:, :, -1:])
    if request.condition_noise:
        image = _noised(image, request.image_noise_sigma, generator, per_frame=False)
        still = _noised(still, request.video_noise_sigma, generator, per_frame=False)
    return image, still


def _video(
    request: GenerationRequest, condition: VideoCondition, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    one = condition.first.mean.shape
    skipped = condition.num_chunks - len(condition.chunks)
    first = condition.first.sample(torch.randn(one, generator=generator))
    for _ in range(skipped):
        _chunk_noise(one, generator)
    chunks = [chunk.sample(_chunk_noise(one, generator)) for chunk in condition.chunks]
    if request.condition_noise:
        first = _noised(first, request.image_noise_sigma, generator, per_frame=False)
        for _ in range(skipped):
            torch.rand(LATENT_FRAMES_PER_CHUNK, generator=generator)
            _chunk_noise(one, generator)
        chunks = [_noised(chunk, request.video_noise_sigma, generator, per_frame=True) for chunk in chunks]
    return first, torch.cat(chunks, dim=2)


def _chunk_noise(one: torch.Size, generator: torch.Generator) -> torch.Tensor:
    batch, channels, _, height, width = one
    return torch.randn(batch, channels, LATENT_FRAMES_PER_CHUNK, height, width, generator=generator)


def _noised(
    latents: torch.Tensor, sigma_range: tuple[float, float], generator: torch.Generator, *, per_frame: bool
) -> torch.Tensor:
    """sigma * noise + (1 - sigma) * latents, one sigma for all frames or one for each."""
    low, high = sigma_range
    sigma = torch.rand(latents.shape[2] if per_frame else 1, generator=generator) * (high - low) + low
    noise = torch.randn(latents.shape, generator=generator)
    return torch.lerp(latents, noise, sigma.view(1, 1, -1, 1, 1))
