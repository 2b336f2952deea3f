"""Latents of each pyramid stage and of three whole chunks against `HeliosPyramidPipeline` with the same seed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import helios_engine.denoiser as sampling
from helios_engine.denoiser import Denoiser
from helios_engine.noise import block_noise
from helios_engine.request import GenerationRequest
from helios_engine.scheduler import denoise_step
from helios_engine.state import DenoiseState
from parity.reference import (
    SHAPES,
    TOLERANCE,
    Shape,
    pipeline,
    relative_error,
    schedulers,
    transformers,
    working_cholesky,
)

Latents = list[torch.Tensor]
PROMPT = torch.randn(1, 512, 24, generator=torch.Generator().manual_seed(7))


def request_for(shape: Shape, chunks: int, **options: Any) -> GenerationRequest:
    return GenerationRequest(
        prompt="given as embedding", height=shape.height, width=shape.width, num_frames=33 * chunks, seed=11, **options
    )


def reference_steps(shape: Shape, request: GenerationRequest, **scheduler: Any) -> Latents:
    """Latents after every denoising step of the reference pipeline."""
    steps: Latents = []

    def record(_pipe: Any, _index: int, _t: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        steps.append(tensors["latents"].clone())
        return {}

    reference_scheduler, config = schedulers(**scheduler)
    with working_cholesky(config.gamma):
        pipeline(transformers(shape)[0], None, reference_scheduler)(
            prompt_embeds=PROMPT,
            height=request.height,
            width=request.width,
            num_frames=request.num_frames,
            guidance_scale=1.0,
            generator=torch.Generator().manual_seed(request.seed),
            pyramid_num_inference_steps_list=list(request.pyramid_steps),
            is_amplify_first_chunk=request.amplify_first_chunk,
            output_type="latent",
            callback_on_step_end=record,
        )
    return steps


def our_steps(
    shape: Shape,
    request: GenerationRequest,
    monkeypatch: pytest.MonkeyPatch,
    *,
    serialise: bool = False,
    **scheduler: Any,
) -> Latents:
    """Latents after every denoising step of ours; `serialise` sends the state through bytes between chunks."""
    steps: Latents = []

    def record(*args: Any) -> torch.Tensor:
        steps.append(denoise_step(*args))
        return steps[-1]

    monkeypatch.setattr(sampling, "denoise_step", record)
    denoiser = Denoiser(transformers(shape)[1], schedulers(**scheduler)[1])
    state = DenoiseState.initial(request)
    for _ in range(request.num_chunks):
        latents, state = denoiser.denoise_chunk(state, PROMPT)
        assert torch.equal(latents, steps[-1])
        state = DenoiseState.from_bytes(state.to_bytes()) if serialise else state
    return steps


def worst(ours: Latents, reference: Latents) -> float:
    return max(relative_error(a, b) for a, b in zip(ours, reference, strict=True))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_every_stage_of_three_chunks(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_for(shape, 3, pyramid_steps=(1, 2, 1))
    options = {"use_dynamic_shifting": True}
    ours = our_steps(shape, request, monkeypatch, serialise=True, **options)
    assert worst(ours, reference_steps(shape, request, **options)) < TOLERANCE


@pytest.mark.parametrize(
    "options",
    [{"use_dynamic_shifting": True, "time_shift_type": "exponential"}, {"shift": 2.0, "gamma": 0.25}],
    ids=str,
)
def test_amplified_first_chunk(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_for(SHAPES[0], 2, pyramid_steps=(2, 1, 2), amplify_first_chunk=True)
    ours = our_steps(SHAPES[0], request, monkeypatch, **options)
    assert len(ours) == 2 * 5 + 5
    assert worst(ours, reference_steps(SHAPES[0], request, **options)) < TOLERANCE


def _unrotated_blocks(shape: tuple[int, ...], gamma: float, generator: torch.Generator) -> torch.Tensor:
    return block_noise(shape, gamma, generator).transpose(-1, -2).reshape(shape)


def _other_gamma(shape: tuple[int, ...], gamma: float, generator: torch.Generator) -> torch.Tensor:
    return block_noise(shape, gamma * 0.99, generator)


@pytest.mark.parametrize("noise", [_unrotated_blocks, _other_gamma])
def test_comparison_catches_block_noise(noise: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_for(SHAPES[0], 1, pyramid_steps=(1, 1, 1))
    monkeypatch.setattr(sampling, "block_noise", noise)
    ours, reference = our_steps(SHAPES[0], request, monkeypatch), reference_steps(SHAPES[0], request)
    assert relative_error(ours[0], reference[0]) < TOLERANCE  # the first stage has no block noise
    assert relative_error(ours[1], reference[1]) > TOLERANCE


def test_comparison_catches_a_lost_anchor(monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_for(SHAPES[0], 2, pyramid_steps=(1, 1, 1))
    advanced = DenoiseState.advanced

    def without_anchor(state: DenoiseState, latents: torch.Tensor, generator: torch.Generator) -> DenoiseState:
        after = advanced(state, latents, generator)
        return DenoiseState(**{**vars(after), "anchor": torch.zeros_like(after.anchor)})

    monkeypatch.setattr(DenoiseState, "advanced", without_anchor)
    ours, reference = our_steps(SHAPES[0], request, monkeypatch), reference_steps(SHAPES[0], request)
    assert worst(ours[:3], reference[:3]) < TOLERANCE
    assert relative_error(ours[3], reference[3]) > TOLERANCE
