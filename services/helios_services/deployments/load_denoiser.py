"""Loads the denoiser that the configuration describes; what a lone replica and every rank of a group do alike."""

import torch

from helios_engine.denoiser import Denoiser
from helios_services.config import ServiceConfig


def load_denoiser(config: ServiceConfig, device: torch.device) -> Denoiser:
    """The whole DiT on this device. Raises CheckpointError."""
    return Denoiser.from_pretrained(
        config.model.checkpoint,
        device=device,
        dtype=getattr(torch, config.model.dtype),
        prompt_cache_entries=config.denoiser.prompt_cache_entries,
    )
