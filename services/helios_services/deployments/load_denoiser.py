"""The denoiser as the configuration describes it: what one device runs, alone or as one rank of several."""

import torch

from helios_engine.checkpoint import open_checkpoint
from helios_engine.denoiser import Denoiser
from helios_services.config import ServiceConfig, check_variant

GB = 1_000_000_000


def load_denoiser(config: ServiceConfig, device: torch.device) -> Denoiser:
    """The denoiser that the configuration describes. Raises CheckpointError, ConfigError for another variant."""
    options = config.denoiser
    check_variant(config, open_checkpoint(config.model.checkpoint).variant)
    return Denoiser.from_pretrained(
        config.model.checkpoint,
        device=device,
        dtype=getattr(torch, config.model.dtype),
        prompt_cache_entries=options.prompt_cache_entries,
        guidance_batching=options.guidance_batching,
        offload_budget_bytes=None if options.offload_budget_gb is None else int(options.offload_budget_gb * GB),
        loras=config.model.loras,
        merged_loras=tuple(config.model.merged_loras.items()),
    )
