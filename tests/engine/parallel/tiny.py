"""Tiny random models and inputs, the same in every process; without diffusers, which takes seconds to import."""

from dataclasses import dataclass

import torch

from helios_engine.configs import TransformerConfig
from helios_engine.model.transformer import HeliosTransformer, parameter_dtype

TEXT_DIM = 8
TEXT_TOKENS = 7
PYRAMID = ((2, 6), (4, 12), (8, 24))
"""Latent sizes of the three stages of a 64 x 192 video: 27, 108 and 432 noisy tokens after 120 of history."""
ODD = ((2, 2), (10, 10))
"""9 and 225 noisy tokens after 75 of history."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, its inputs and the mesh it runs on."""

    ulysses: int = 1
    ring: int = 1
    cfg: int = 1
    heads: int = 4
    layers: int = 2
    batch: int = 1
    shared_history: bool = False
    scale_mode: str = "per_head"
    sizes: tuple[tuple[int, int], ...] = ODD
    dtype: torch.dtype = torch.float32
    broken: str | None = None


def tiny_model(case: Case) -> HeliosTransformer:
    """A model with random weights of sane scale, none at its identity initialisation."""
    config = TransformerConfig(
        num_attention_heads=case.heads,
        attention_head_dim=12,
        text_dim=TEXT_DIM,
        freq_dim=16,
        ffn_dim=40,
        num_layers=case.layers,
        rope_dim=(4, 4, 4),
        is_amplify_history=True,
        history_scale_mode=case.scale_mode,
    )
    model = HeliosTransformer(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        norm = name.endswith(("norm_q.weight", "norm_k.weight", "norm2.weight"))
        value = noise * 0.2 + norm if parameter.dim() < 2 else noise / parameter[0].numel() ** 0.5
        parameter.data = value.to(parameter_dtype(name, case.dtype))
    return model


def velocities(case: Case, model: torch.nn.Module) -> list[torch.Tensor]:
    """One forward for each size of the case, history of the largest; every row of the batch is different."""
    generator = torch.Generator().manual_seed(6)

    def noise(*shape: int, batch: int = case.batch) -> torch.Tensor:
        return torch.randn(batch, *shape, generator=generator).to(case.dtype)

    largest, histories = case.sizes[-1], 1 if case.shared_history else case.batch
    with torch.inference_mode():
        latents = noise(16, 19, *largest, batch=histories), noise(16, 1, *largest, batch=histories)
        history = model.encode_history(*latents)  # type: ignore[operator]
        text = model.encode_text(noise(TEXT_TOKENS, TEXT_DIM))  # type: ignore[operator]
        return [model(noise(16, 9, *size), timestep, history, text).float() for timestep, size in enumerate(case.sizes)]


def relative_error(ours: torch.Tensor, reference: torch.Tensor) -> float:
    """|ours - reference| / |reference|; infinite for different shapes or NaN."""
    if ours.shape != reference.shape or not torch.isfinite(ours).all():
        return float("inf")
    return float((ours.double() - reference.double()).norm() / reference.double().norm())
