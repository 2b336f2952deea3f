"""One forward of the DiT against `HeliosTransformer3DModel`, and proof that the comparison can fail."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from parity.reference import SHAPES, TOLERANCE, Shape, relative_error, transformers


def forward_both(shape: Shape, break_ours: Callable[[Any], None] | None = None) -> float:
    """Relative error of one forward at the coarsest and finest stage with non-zero history; optionally broken."""
    reference, ours = transformers(shape)
    if break_ours is not None:
        break_ours(ours)
    generator = torch.Generator().manual_seed(1)
    h, w = shape.height // 8, shape.width // 8
    history = torch.randn(1, 16, 19, h, w, generator=generator)
    anchor = torch.randn(1, 16, 1, h, w, generator=generator)
    text = torch.randn(1, 512, 24, generator=generator)
    errors = []
    for scale, timestep in ((4, 999), (1, 317)):
        noisy = torch.randn(1, 16, 9, h // scale, w // scale, generator=generator)
        indices = torch.arange(29).split([1, 16, 2, 1, 9])
        long, mid, short = history.split([16, 2, 1], dim=2)
        with torch.inference_mode():
            expected = reference(
                hidden_states=noisy,
                timestep=torch.tensor([timestep]),
                encoder_hidden_states=text,
                indices_hidden_states=indices[4][None],
                indices_latents_history_short=torch.cat([indices[0], indices[3]])[None],
                indices_latents_history_mid=indices[2][None],
                indices_latents_history_long=indices[1][None],
                latents_history_short=torch.cat([anchor, short], dim=2),
                latents_history_mid=mid,
                latents_history_long=long,
                return_dict=False,
            )[0]
            actual = ours(noisy, timestep, ours.encode_history(history, anchor), ours.encode_text(text))
        errors.append(relative_error(actual, expected))
    return max(errors)


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


def test_scalar_key_scale_is_caught() -> None:
    assert forward_both(SHAPES[1], _one_key_scale) > TOLERANCE
