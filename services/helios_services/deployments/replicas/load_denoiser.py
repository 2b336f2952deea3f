"""The denoiser as the configuration describes it: what one device runs, alone or as one rank of several."""

import torch

from helios_engine.accelerate.compiling import use_cache
from helios_engine.checkpoint import open_checkpoint
from helios_engine.loading.denoiser import load_denoiser as from_checkpoint
from helios_engine.request import FRAMES_PER_CHUNK, GenerationRequest
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.variants import make_request
from helios_services.config import ServiceConfig, check_variant

GB = 1_000_000_000


def load_denoiser(config: ServiceConfig, device: torch.device) -> Denoiser:
    """The denoiser that the configuration describes, warmed up where that saves the first job time.

    Raises CheckpointError, ConfigError for another variant, ValueError for options that the device does not have.
    """
    options = config.denoiser
    check_variant(config, open_checkpoint(config.model.checkpoint).variant)
    compiles = device.type == "cuda" or options.compile_mode != "off"
    if compiles:
        use_cache(config.compile_cache)
    denoiser = from_checkpoint(
        config.model.checkpoint,
        device=device,
        dtype=getattr(torch, config.dtype),
        prompt_cache_entries=options.prompt_cache_entries,
        guidance_batching=options.guidance_batching,
        offload_budget_bytes=None if options.offload_gb is None else int(options.offload_gb * GB),
        loras=config.model.loras,
        merged_loras=tuple(config.model.merged_loras.items()),
        compile=options.compile_mode,
        fp8=options.fp8,
        attention=options.attention,
    )
    if compiles and options.parallel.world_size == 1:  # ranks can only compute together, which they cannot yet
        for height, width in config.model.warm_ups:
            denoiser.warm_up(warm_up_request(config.model.variant, height, width))
    return denoiser


def warm_up_request(variant: str, height: int, width: int) -> GenerationRequest:
    """One step a stage."""
    steps = {"num_inference_steps": 1} if variant == "base" else {"pyramid_steps": (1, 1, 1)}
    return make_request(variant, prompt="warm-up", num_frames=FRAMES_PER_CHUNK, height=height, width=width, **steps)
