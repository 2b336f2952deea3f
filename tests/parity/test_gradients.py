"""Gradients against the reference's, and against finite differences: of every parameter and every input."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from helios_engine.vae.encoder import WanEncoder
from helios_kernels import norm_rotate
from parity.reference import (
    SHAPES,
    TOLERANCE,
    ForwardInputs,
    Shape,
    forward_inputs,
    our_velocity,
    randomize,
    reference_velocity,
    relative_error,
    transformers,
    vaes,
)

INPUTS = ("noisy", "history", "anchor", "text")
PADDED = 500
"""Rows of zeros behind a prompt: without gradients they are folded into one."""


def probe(like: torch.Tensor) -> torch.Tensor:
    """A random direction: the loss is the output's product with it."""
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(11), dtype=like.dtype)


def asking(inputs: ForwardInputs) -> ForwardInputs:
    """Copies of the tensors that ask for gradients."""
    tensors = {name: getattr(inputs, name).detach().clone().requires_grad_() for name in INPUTS}
    return replace(inputs, **tensors)


def gradients(model: torch.nn.Module, inputs: ForwardInputs) -> dict[str, torch.Tensor]:
    """By the names of parameters and inputs, from the `.grad` that a backward has left."""
    named = {**dict(model.named_parameters()), **{name: getattr(inputs, name) for name in INPUTS}}
    lost = sorted(name for name, tensor in named.items() if tensor.grad is None)
    assert lost == [], "no gradient came back"
    return {name: tensor.grad for name, tensor in named.items() if tensor.grad is not None}


def transformer_gradients(shape: Shape, scale: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Ours and the reference's, for a prompt with padding."""
    reference, ours = transformers(shape)
    inputs = forward_inputs(shape, scale, 500)
    inputs.text[:, -PADDED:] = 0.0
    found = []
    for model, velocity in ((ours, our_velocity), (reference, reference_velocity)):
        own = asking(inputs)
        out = velocity(model, own)
        (out * probe(out)).sum().backward()
        found.append(gradients(model, own))
    return found[0], found[1]


def largest_error(ours: Mapping[str, torch.Tensor], reference: Mapping[str, torch.Tensor]) -> float:
    """Relative, over all names.

    A gradient that large terms cancel to is rounded as they are: the scalar key scale's is a hundredth of its terms.
    So none is held to less than a fiftieth of the median gradient's size.
    """
    assert ours.keys() == reference.keys()
    scale = torch.stack([gradient.norm() for gradient in reference.values()]).median()
    return max(
        float((ours[name] - gradient).norm() / gradient.norm().clamp_min(0.02 * scale))
        for name, gradient in reference.items()
    )


@pytest.mark.parametrize("scale", [4, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_transformer(shape: Shape, scale: int) -> None:
    assert largest_error(*transformer_gradients(shape, scale)) < TOLERANCE


def test_a_key_scale_without_a_gradient_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    scaled = norm_rotate._scaled_ref

    def detached(k: torch.Tensor, scale: torch.Tensor, history_tokens: int) -> torch.Tensor:
        return scaled(k, scale + 0.01 * (scale - scale.detach()), history_tokens)

    monkeypatch.setattr(norm_rotate, "_scaled_ref", detached)
    assert largest_error(*transformer_gradients(SHAPES[0], 4)) > TOLERANCE


def test_gradients_do_not_depend_on_a_forward_before_without_them() -> None:
    """Rotations are kept from one forward to the next: they must not be tensors that autograd cannot save."""
    _, ours = transformers(SHAPES[0])
    inputs = forward_inputs(SHAPES[0], 4, 500)
    with torch.inference_mode():
        before = our_velocity(ours, inputs)
    velocity = our_velocity(ours, asking(inputs))
    velocity.sum().backward()
    assert relative_error(velocity.detach(), before) < 1e-6
    assert ours.patch_embedding.weight.grad is not None


def test_finite_differences() -> None:
    """In float64, along a random direction of all parameters and inputs at once."""
    _, ours = transformers(SHAPES[0])
    ours = ours.double()
    inputs = forward_inputs(SHAPES[0], 4, 500)
    inputs = asking(replace(inputs, **{name: getattr(inputs, name).double() for name in INPUTS}))
    out = our_velocity(ours, inputs)
    weights = probe(out)
    (out * weights).sum().backward()
    slopes, tensors = gradients(ours, inputs), {**dict(ours.named_parameters()), **vars(inputs)}
    generator = torch.Generator().manual_seed(12)
    ways = {n: torch.randn(tensors[n].shape, generator=generator, dtype=torch.float64) for n in slopes}
    expected = sum(float((slopes[name] * way).sum()) for name, way in ways.items())

    def moved(step: float) -> float:
        with torch.no_grad():
            for name, way in ways.items():
                tensors[name].add_(way, alpha=step)
            loss = float((our_velocity(ours, inputs) * weights).sum())
            for name, way in ways.items():
                tensors[name].sub_(way, alpha=step)
        return loss

    # computed in float32 inside: a step small enough for the slope, large enough for rounding
    step = 1e-3
    slope = (8 * (moved(step) - moved(-step)) - (moved(2 * step) - moved(-2 * step))) / (12 * step)
    assert slope == pytest.approx(expected, rel=1e-3)


def decoded(model: Any, latents: torch.Tensor) -> torch.Tensor:
    """The reference's pixels before its clamp, which has no gradient outside of the range."""
    mean, std = (torch.tensor(model.config[k]).view(1, 16, 1, 1, 1) for k in ("latents_mean", "latents_std"))
    z = latents / (1.0 / std) + mean
    model.clear_cache()
    z = model.post_quant_conv(z)
    pixels = []
    for index in range(z.shape[2]):
        model._conv_idx = [0]
        pixels.append(
            model.decoder(
                z[:, :, index : index + 1],
                feat_cache=model._feat_map,
                feat_idx=model._conv_idx,
                first_chunk=index == 0,
            )
        )
    return torch.cat(pixels, dim=2)


def vae_errors(ours: torch.nn.Module, reference: torch.nn.Module, x: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest error of the gradients of our half's parameters and of the input."""
    named = dict(reference.named_parameters())
    found = {name: parameter.grad for name, parameter in ours.named_parameters()}
    expected = {name: named[name].grad for name in found}
    assert x.grad is not None
    assert theirs.grad is not None
    assert all(gradient is not None for gradient in (*found.values(), *expected.values()))
    return largest_error({**found, "x": x.grad}, {**expected, "x": theirs.grad})  # type: ignore[dict-item]


def test_vae_decoder() -> None:
    reference, decoder, _ = vaes()
    ours = decoder.model.requires_grad_()
    latents = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(3))
    mine, theirs = latents.clone().requires_grad_(), latents.clone().requires_grad_()
    pixels, expected = ours(mine), decoded(reference, theirs)
    assert relative_error(pixels.detach(), expected.detach()) < TOLERANCE
    assert pixels.abs().max() > 1.0  # some would have been clamped
    for out in (pixels, expected):
        (out * probe(out)).sum().backward()
    assert vae_errors(ours, reference, mine, theirs) < TOLERANCE


def test_vae_encoder() -> None:
    reference, _, encoder = vaes()
    ours = encoder.model.requires_grad_()
    assert isinstance(ours, WanEncoder)
    video = torch.rand(1, 3, 9, 32, 48, generator=torch.Generator().manual_seed(4)) * 2 - 1
    mine, theirs = video.clone().requires_grad_(), video.clone().requires_grad_()
    mean, std = (torch.tensor(reference.config[k]).view(1, 16, 1, 1, 1) for k in ("latents_mean", "latents_std"))
    posterior = reference.encode(theirs).latent_dist
    pairs = zip(ours(mine), ((posterior.mean - mean) / std, posterior.std / std), strict=True)
    for found, expected in pairs:
        assert relative_error(found.detach(), expected.detach()) < TOLERANCE
        for out in (found, expected):
            (out * probe(out)).sum().backward(retain_graph=True)
    assert vae_errors(ours, reference, mine, theirs) < TOLERANCE


def test_text_encoder() -> None:
    from transformers import UMT5Config, UMT5EncoderModel

    from helios_engine.text.encoder import TextEncoder

    torch.manual_seed(0)
    config = UMT5Config(vocab_size=32, d_model=16, d_kv=4, d_ff=24, num_layers=1, num_heads=4, dropout_rate=0.0)
    model = UMT5EncoderModel(config)
    randomize(model, 5)

    class Tokenizer:
        """Letters."""

        def __call__(self, prompts: list[str], **_: Any) -> Any:
            longest = max(map(len, prompts))
            ids = torch.tensor([[ord(c) % 31 + 1 for c in p] + [0] * (longest - len(p)) for p in prompts])
            return type("Tokens", (), {"input_ids": ids, "attention_mask": ids.ne(0).long()})()

    encoder = TextEncoder(model, Tokenizer())
    model.requires_grad_()
    embeds = encoder.embed(["abc", "lakes"])
    torch.testing.assert_close(embeds.detach(), encoder.encode(["abc", "lakes"]))
    embeds[:, :5].square().sum().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None and gradient.any() for gradient in found.values())
