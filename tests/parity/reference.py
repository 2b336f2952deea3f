"""Random tiny models of the reference implementation (diffusers), and ours with the same weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any
from unittest import mock

import torch
from diffusers import (
    AutoencoderKLWan,
    HeliosDMDScheduler,
    HeliosPipeline,
    HeliosPyramidPipeline,
    HeliosScheduler,
    HeliosTransformer3DModel,
)

from helios_engine.configs import SchedulerConfig, SolverConfig, TransformerConfig, VAEConfig
from helios_engine.model.transformer import HeliosTransformer
from helios_engine.vae.decoder import VAEDecoder, WanDecoder
from helios_engine.vae.encoder import VAEEncoder, WanEncoder

TOLERANCE = 1e-4
"""Relative error that fp32 rounding in another order stays under, by two orders of magnitude on these models."""


@dataclass(frozen=True)
class Shape:
    """A tiny model and the video it makes (pixels)."""

    name: str
    heads: int
    head_dim: int
    rope_dim: tuple[int, int, int]
    layers: int
    amplify: bool
    scale_mode: str
    height: int
    width: int


SHAPES = [
    Shape("per_head_keys", 2, 24, (8, 8, 8), 2, True, "per_head", 64, 128),
    Shape("scalar_key", 3, 20, (8, 4, 8), 3, True, "scalar", 128, 64),
    Shape("plain_keys_odd_history_grid", 4, 12, (4, 4, 4), 1, False, "per_head", 192, 64),
]


def relative_error(ours: torch.Tensor, reference: torch.Tensor) -> float:
    """|ours - reference| / |reference| in float64; infinite for different shapes or NaN."""
    if ours.shape != reference.shape or not torch.isfinite(ours).all():
        return float("inf")
    return float((ours.double() - reference.double()).norm() / reference.double().norm())


def randomize(module: torch.nn.Module, seed: int, gain: float = 1.0) -> None:
    """Gives every parameter a random value of sane scale: nothing stays at its identity initialisation."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(module.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() < 2 or name.endswith("gamma"):
            norm = name.endswith(("gamma", "norm_q.weight", "norm_k.weight", "norm2.weight"))
            parameter.data = noise * 0.2 + (1.0 if norm else 0.0)
        else:
            parameter.data = noise * gain / parameter[0].numel() ** 0.5


def transformers(shape: Shape, seed: int = 0) -> tuple[HeliosTransformer3DModel, HeliosTransformer]:
    """The reference DiT with random weights, and ours with the same."""
    config = TransformerConfig(
        num_attention_heads=shape.heads,
        attention_head_dim=shape.head_dim,
        text_dim=24,
        freq_dim=32,
        ffn_dim=56,
        num_layers=shape.layers,
        rope_dim=shape.rope_dim,
        is_amplify_history=shape.amplify,
        history_scale_mode=shape.scale_mode,
    )
    reference = HeliosTransformer3DModel(**asdict(config)).eval()
    randomize(reference, seed)
    ours = HeliosTransformer(config).eval()
    ours.load_state_dict(reference.state_dict(), strict=True)
    return reference, ours


@dataclass(frozen=True, kw_only=True)
class ForwardInputs:
    """What one forward of the DiT takes, apart from the weights."""

    noisy: torch.Tensor
    timestep: int
    history: torch.Tensor
    anchor: torch.Tensor
    text: torch.Tensor


def forward_inputs(shape: Shape, scale: int, timestep: int) -> ForwardInputs:
    """Random inputs with non-zero history; the noisy latents are `scale` times smaller than the history's."""
    generator = torch.Generator().manual_seed(timestep)
    h, w = shape.height // 8, shape.width // 8
    return ForwardInputs(
        noisy=torch.randn(1, 16, 9, h // scale, w // scale, generator=generator),
        timestep=timestep,
        history=torch.randn(1, 16, 19, h, w, generator=generator),
        anchor=torch.randn(1, 16, 1, h, w, generator=generator),
        text=torch.randn(1, 512, 24, generator=generator),
    )


def reference_velocity(reference: HeliosTransformer3DModel, inputs: ForwardInputs) -> torch.Tensor:
    """The reference's flow velocity, differentiable."""
    indices = torch.arange(29).split([1, 16, 2, 1, 9])
    long, mid, short = inputs.history.split([16, 2, 1], dim=2)
    velocity: torch.Tensor = reference(
        hidden_states=inputs.noisy,
        timestep=torch.tensor([inputs.timestep]),
        encoder_hidden_states=inputs.text,
        indices_hidden_states=indices[4][None],
        indices_latents_history_short=torch.cat([indices[0], indices[3]])[None],
        indices_latents_history_mid=indices[2][None],
        indices_latents_history_long=indices[1][None],
        latents_history_short=torch.cat([inputs.anchor, short], dim=2),
        latents_history_mid=mid,
        latents_history_long=long,
        return_dict=False,
    )[0]
    return velocity


def our_velocity(ours: HeliosTransformer, inputs: ForwardInputs) -> torch.Tensor:
    """Our flow velocity of the same, in the model's dtype, differentiable."""
    dtype = ours.proj_out.weight.dtype
    noisy, history, anchor, text = (
        part.to(dtype) for part in (inputs.noisy, inputs.history, inputs.anchor, inputs.text)
    )
    velocity: torch.Tensor = ours(noisy, inputs.timestep, ours.encode_history(history, anchor), ours.encode_text(text))
    return velocity


reference_forward, our_forward = (torch.inference_mode()(velocity) for velocity in (reference_velocity, our_velocity))


def vaes(seed: int = 0) -> tuple[AutoencoderKLWan, VAEDecoder, VAEEncoder]:
    """The reference VAE with random weights, and our decoder and encoder with the same."""
    reference = AutoencoderKLWan(base_dim=8, num_res_blocks=1).eval()
    randomize(reference, seed, gain=1.5)
    keys = ("base_dim", "num_res_blocks", "dim_mult", "latents_mean", "latents_std")
    options: dict[str, Any] = {k: tuple(v) if isinstance(v := reference.config[k], list) else v for k in keys}
    config = VAEConfig(**options)
    decoder, encoder = WanDecoder(config), WanEncoder(config)
    for half, prefixes in ((decoder, ("decoder.", "post_quant_conv.")), (encoder, ("encoder.", "quant_conv."))):
        half.load_state_dict({k: v for k, v in reference.state_dict().items() if k.startswith(prefixes)}, strict=True)
    return reference, VAEDecoder(decoder), VAEEncoder(encoder)


def schedulers(**options: Any) -> tuple[HeliosDMDScheduler, SchedulerConfig]:
    """The reference scheduler and our configuration of the same."""
    return HeliosDMDScheduler(**options), SchedulerConfig(**options)


def solvers(**options: Any) -> tuple[HeliosScheduler, SolverConfig]:
    """The reference scheduler of Base (stages=1) and Mid, and our configuration of the same."""
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
    return HeliosScheduler(**lists), SolverConfig(**options)


def pipeline(
    transformer: HeliosTransformer3DModel, vae: AutoencoderKLWan | None, scheduler: Any, *, zero_star: bool = False
) -> Any:
    """The reference pipeline of the scheduler's variant, without text encoder; prompts come as embeddings."""
    parts = {
        "tokenizer": None,
        "text_encoder": None,
        "vae": vae if vae is not None else vaes()[0],
        "scheduler": scheduler,
        "transformer": transformer,
    }
    distilled = isinstance(scheduler, HeliosDMDScheduler)
    if scheduler.config.stages == 1:
        pipe = HeliosPipeline(**parts)
    else:
        pipe = HeliosPyramidPipeline(**parts, is_distilled=distilled, is_cfg_zero_star=zero_star)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@contextmanager
def working_cholesky(gamma: float) -> Iterator[None]:
    """The reference's block-noise covariance is singular, and its float32 Cholesky fails on a CPU.

    Same matrix, from the same gamma, in float64.
    """
    cholesky = torch.linalg.cholesky

    def in_float64(matrix: torch.Tensor) -> torch.Tensor:
        covariance = torch.eye(4, dtype=torch.float64) * (1 + gamma + 1e-8) - gamma
        torch.testing.assert_close(covariance.float(), matrix)
        factor: torch.Tensor = cholesky(covariance)
        return factor.float()

    with mock.patch.object(torch.linalg, "cholesky", in_float64):
        yield
