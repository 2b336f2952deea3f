"""Latents of each denoising step of step-distilled Helios against `HeliosPyramidPipeline` with the same seed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import helios_engine.sampling.denoiser as sampling
from helios_engine.sampling.noise import block_noise
from helios_engine.sampling.state import DenoiseState
from parity.reference import SHAPES, TOLERANCE, Shape, relative_error
from parity.sampling import our_steps, reference_steps, request_for, worst


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_every_stage_of_three_chunks(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_for(shape, 3, pyramid_steps=(1, 2, 1))
    ours = our_steps(shape, request, monkeypatch, serialise=True)
    assert worst(ours, reference_steps(shape, request)) < TOLERANCE


@pytest.mark.parametrize(
    "options",
    [{"time_shift_type": "exponential"}, {"use_dynamic_shifting": False, "shift": 2.0, "gamma": 0.25}],
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
        return replace(after, anchor=torch.zeros_like(after.anchor))

    monkeypatch.setattr(DenoiseState, "advanced", without_anchor)
    ours, reference = our_steps(SHAPES[0], request, monkeypatch), reference_steps(SHAPES[0], request)
    assert worst(ours[:3], reference[:3]) < TOLERANCE
    assert relative_error(ours[3], reference[3]) > TOLERANCE
