"""Helios-Base and Helios-Mid, every denoising step of several chunks, against the reference pipelines."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import helios_engine.sampling.denoiser as sampling
from helios_engine.sampling.state import DenoiseState
from parity.reference import SHAPES, TOLERANCE, Shape
from parity.sampling import our_steps, reference_steps, request_for, worst

STEPS: dict[str, dict[str, Any]] = {
    "base": {"num_inference_steps": 4},
    "mid": {"pyramid_steps": (4, 2, 3)},
    "distilled": {"pyramid_steps": (1, 1, 1)},
}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("variant", ["base", "mid"])
def test_every_step_of_three_chunks(variant: str, shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_for(shape, 3, variant, **STEPS[variant])
    assert request.guided
    ours = our_steps(shape, request, monkeypatch, variant, serialise=True)
    assert worst(ours, reference_steps(shape, request, variant)) < TOLERANCE


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("base", {"guidance_scale": 1.0}),
        ("base", {"height": 80, "width": 112}),
        ("mid", {"zero_init": False}),
        ("mid", {"zero_steps": 0, "guidance_scale": 2.5}),
        ("mid", {"guidance_scale": 1.0}),
        ("mid", {"skip_first_chunk": True}),
        ("base", {"keep_first_frame": False}),
        ("distilled", {"keep_first_frame": False}),
    ],
    ids=str,
)
def test_options(variant: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    shape = SHAPES[0]
    request = request_for(shape, 3, variant, **STEPS[variant] | options)
    ours = our_steps(shape, request, monkeypatch, variant)
    assert worst(ours, reference_steps(shape, request, variant)) < TOLERANCE
    other = request_for(shape, 3, variant, **STEPS[variant])
    if other.height == request.height:
        assert worst(our_steps(shape, other, monkeypatch, variant), ours) > 1e-3  # the option does something


@pytest.mark.parametrize("variant", ["base", "mid"])
def test_guidance_in_turn_is_guidance_in_one_batch(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_for(SHAPES[1], 2, variant, **STEPS[variant])
    batched, in_turn = (
        our_steps(SHAPES[1], request, monkeypatch, variant, guidance_batching=batching)
        for batching in ("always", "never")
    )
    assert worst(batched, in_turn) < 1e-5


def test_zero_init_does_not_ask_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    predict = sampling.Denoiser.predict

    def counted(self: Any, latents: torch.Tensor, *args: Any) -> torch.Tensor:
        calls.append(len(latents))
        return predict(self, latents, *args)

    monkeypatch.setattr(sampling.Denoiser, "predict", counted)
    request = request_for(SHAPES[0], 1, "mid", pyramid_steps=(4, 1, 1))
    our_steps(SHAPES[0], request, monkeypatch, "mid")
    assert calls == [2] * 4  # of 6 steps, each for the conditional and the unconditional pass


def test_comparison_catches_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_for(SHAPES[0], 1, "mid", pyramid_steps=(3, 3, 3))
    reference = reference_steps(SHAPES[0], request, "mid")
    ours = our_steps(SHAPES[0], request, monkeypatch, "mid", solver_order=1)
    assert worst(ours, reference) > 1e-3


def test_comparison_catches_a_wrong_history(monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_for(SHAPES[0], 2, "base", num_inference_steps=2)
    reference = reference_steps(SHAPES[0], request, "base")
    advanced = DenoiseState.advanced

    def shifted(state: DenoiseState, *args: Any) -> DenoiseState:
        after = advanced(state, *args)
        return replace(after, history=after.history.roll(1, dims=2))

    monkeypatch.setattr(DenoiseState, "advanced", shifted)
    ours = our_steps(SHAPES[0], request, monkeypatch, "base")
    assert worst(ours[:2], reference[:2]) < TOLERANCE
    assert worst(ours[2:], reference[2:]) > TOLERANCE
