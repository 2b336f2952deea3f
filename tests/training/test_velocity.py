"""The DiT as it is trained is the DiT as it is served, for each sample alone, with gradients everywhere."""

import pytest
import torch

from helios_engine.model.block import Block
from helios_engine.model.transformer import HeliosTransformer
from helios_training.small.start import fresh_transformer
from helios_training.velocity import Conditions, hidden_features, velocity
from training.small_models import CONFIG, random_transformer

TIMESTEPS = torch.tensor([130.0, 870.0])


def given(batch: int = 2) -> Conditions:
    generator = torch.Generator().manual_seed(5)
    embeds = torch.randn(batch, 512, CONFIG.text_dim, generator=generator)
    embeds[:, 7:] = 0.0
    embeds[1:, 4:] = 0.0  # prompts of different lengths
    history = torch.randn(batch, 16, 19, 8, 8, generator=generator)
    return Conditions(history, torch.randn(batch, 16, 1, 8, 8, generator=generator), embeds)


def noisy(size: int = 8) -> torch.Tensor:
    return torch.randn(2, 16, 9, size, size, generator=torch.Generator().manual_seed(6))


@pytest.mark.parametrize("size", [8, 4, 2])
def test_each_sample_is_what_the_engine_predicts_for_it(size: int) -> None:
    model, conditions, latents = random_transformer(), given(), noisy(size)
    with torch.no_grad():
        together = velocity(model, latents, TIMESTEPS, conditions)
        for n in range(2):
            history, anchor, embeds = (part[n : n + 1] for part in conditions)
            alone = model(
                latents[n : n + 1],
                float(TIMESTEPS[n]),
                model.encode_history(history, anchor),
                model.encode_text(embeds),
            )
            torch.testing.assert_close(together[n : n + 1], alone, atol=1e-5, rtol=1e-4)


def gradients(model: HeliosTransformer, *, recompute: bool) -> dict[str, torch.Tensor]:
    model.zero_grad()
    velocity(model, noisy(), TIMESTEPS, given(), recompute=recompute).square().mean().backward()
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def test_every_parameter_gets_a_gradient_and_recomputing_gives_the_same() -> None:
    model = random_transformer()
    kept, recomputed = gradients(model, recompute=False), gradients(model, recompute=True)
    assert kept.keys() == dict(model.named_parameters()).keys()
    for name, gradient in kept.items():
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(gradient, recomputed[name], atol=1e-7, rtol=1e-5)


def test_padding_that_is_folded_changes_no_gradient() -> None:
    """The gradients are those of the embeddings before the padding, and of every weight."""
    model = random_transformer()
    counts, gradients = zip(*(_text_gradients(model, padding_gradient=whole) for whole in (False, True)), strict=True)
    assert counts == (8, 512)  # the longer prompt's seven rows, and one for all the padding
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-4)


def _text_gradients(model: HeliosTransformer, *, padding_gradient: bool) -> tuple[int, list[torch.Tensor]]:
    """How many rows of text the blocks see; gradients of the prompts' embeddings and of all weights concerned."""
    embeds = given().embeds[:, :9].requires_grad_()
    padded = torch.nn.functional.pad(embeds, (0, 0, 0, 512 - 9))
    keys = model.encode_text(padded, padding_gradient=padding_gradient)
    queries = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(7))
    told = []
    for block, text in zip(model.blocks, keys, strict=True):
        assert isinstance(block, Block)
        told.append(block.attn2.cross_attention(queries, text))
    model.zero_grad()
    torch.stack(told).square().mean().backward()
    assert embeds.grad is not None
    weights = [value.grad.clone() for value in model.parameters() if value.grad is not None]
    return keys[0].k_BLHK.shape[1], [embeds.grad[:, :7], *weights]


def test_gradients_are_slopes() -> None:
    model, latents, conditions = random_transformer(), noisy(), given()

    def loss() -> torch.Tensor:
        return velocity(model, latents, TIMESTEPS, conditions).double().square().mean()

    for name in ("blocks.0.attn1.to_q.weight", "blocks.0.scale_shift_table", "patch_long.weight"):
        parameter = dict(model.named_parameters())[name]
        model.zero_grad()
        value = loss()
        value.backward()
        assert parameter.grad is not None
        length = float(parameter.grad.norm())
        direction = parameter.grad / length
        step = 3e-4 * float(value.detach()) / length  # a change that float32 resolves
        with torch.no_grad():
            parameter.add_(direction, alpha=step)
            above = float(loss())
            parameter.add_(direction, alpha=-2 * step)
            below = float(loss())
            parameter.add_(direction, alpha=step)
        assert (above - below) / (2 * step) == pytest.approx(length, rel=3e-2), name


def test_features_are_those_of_the_noisy_tokens_behind_each_block() -> None:
    model, conditions = random_transformer(), given()
    with torch.no_grad():
        features = hidden_features(model, noisy(), TIMESTEPS, conditions)
    assert [tuple(block.shape) for block in features.blocks] == [(2, 9 * 4 * 4, 24)] * 2
    assert not torch.equal(features.blocks[0], features.blocks[1])


def test_a_fresh_model_predicts_nothing_and_its_memory_patches_are_means() -> None:
    model = fresh_transformer(CONFIG, 0)
    with torch.no_grad():
        assert not velocity(model, noisy(), TIMESTEPS, given()).any()
        flat = torch.randn(1, 16, 1, 1, 1).expand(1, 16, 19, 8, 8)
        tokens = model.encode_history(flat, flat[:, :, :1]).tokens_BND
    torch.testing.assert_close(tokens, tokens[:, :1].expand_as(tokens), atol=1e-5, rtol=1e-4)
