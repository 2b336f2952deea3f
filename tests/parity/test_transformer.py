"""One forward of the DiT against `HeliosTransformer3DModel`, and proof that the comparison can fail."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch

from parity.reference import (
    SHAPES,
    TOLERANCE,
    Shape,
    forward_inputs,
    our_forward,
    reference_forward,
    relative_error,
    transformers,
)


def forward_both(shape: Shape, break_ours: Callable[[Any], None] | None = None) -> float:
    """Relative error of one forward at the coarsest and finest stage with non-zero history; optionally broken."""
    reference, ours = transformers(shape)
    if break_ours is not None:
        break_ours(ours)
    inputs = [forward_inputs(shape, *stage) for stage in ((4, 999), (1, 317))]
    return max(relative_error(our_forward(ours, x), reference_forward(reference, x)) for x in inputs)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_forward_matches_reference(shape: Shape) -> None:
    assert forward_both(shape) < TOLERANCE


def _one_key_scale(model: Any) -> None:
    scale = model.blocks[0].attn1.history_key_scale
    scale.data[0] += 0.05


def _one_rope_axis(model: Any) -> None:
    model.config = type(model.config)(**{**vars(model.config), "rope_dim": (8, 10, 6)})


def _anchor_position(model: Any) -> None:
    rotary = model._rotary
    model.rotary = lambda *sizes: rotary(*sizes).roll(1, 0)


def _unused_modulation_row(model: Any) -> None:
    embed = model.condition_embedder.embed_time
    model.condition_embedder.embed_time = lambda t: tuple(row[[1, 1]] for row in embed(t))


def _query_norm(model: Any) -> None:
    model.blocks[1].attn2.norm_q.weight.data[3] *= 1.1


@pytest.mark.parametrize(
    "perturbation", [_one_key_scale, _one_rope_axis, _anchor_position, _unused_modulation_row, _query_norm]
)
def test_comparison_catches(perturbation: Callable[[Any], None]) -> None:
    assert forward_both(SHAPES[0], perturbation) > TOLERANCE


def prompts(*tokens: int) -> torch.Tensor:
    """Embeddings of prompts of this many tokens, with their padding."""
    embeds = torch.randn(len(tokens), 512, 24, generator=torch.Generator().manual_seed(9))
    for row, used in zip(embeds, tokens, strict=True):
        row[used:] = 0.0
    return embeds


@pytest.mark.parametrize("tokens", [0, 1, 12, 511, 512])
def test_padding_counts_as_in_the_reference(tokens: int) -> None:
    reference, ours = transformers(SHAPES[0])
    inputs = replace(forward_inputs(SHAPES[0], 2, 500), text=prompts(tokens))
    assert len(ours.encode_text(inputs.text)[0].k_BLHK[0]) == min(tokens + 1, 512)
    assert relative_error(our_forward(ours, inputs), reference_forward(reference, inputs)) < TOLERANCE


def test_batch_of_prompts_of_different_length() -> None:
    ours = transformers(SHAPES[0])[1]
    inputs, embeds = forward_inputs(SHAPES[0], 2, 500), prompts(3, 40)
    with torch.inference_mode():
        history = ours.encode_history(inputs.history, inputs.anchor)
        both = ours(inputs.noisy.expand(2, -1, -1, -1, -1), 500, history, ours.encode_text(embeds))
    for velocity, embed in zip(both, embeds, strict=True):
        alone = our_forward(ours, replace(inputs, text=embed[None]))
        assert relative_error(velocity[None], alone) < TOLERANCE


def test_padding_that_counted_once_would_differ() -> None:
    ours = transformers(SHAPES[0])[1]
    inputs = replace(forward_inputs(SHAPES[0], 2, 500), text=prompts(12))
    expected = our_forward(ours, inputs)
    encoded = [kv._replace(last_counts=1) for kv in ours.encode_text(inputs.text)]
    with mock.patch.object(ours, "encode_text", return_value=encoded):
        assert relative_error(our_forward(ours, inputs), expected) > TOLERANCE


def test_scalar_key_scale_is_caught() -> None:
    assert forward_both(SHAPES[1], _one_key_scale) > TOLERANCE
