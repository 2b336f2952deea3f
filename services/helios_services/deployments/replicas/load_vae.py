"""The VAE as the configuration describes it."""

import numpy as np
import torch

from helios_engine.accelerate.compiling import use_cache
from helios_engine.loading.vae import load_decoder, load_encoder
from helios_engine.request import LATENT_FRAMES_PER_CHUNK
from helios_engine.vae.decoder import VAEDecoder
from helios_engine.vae.encoder import VAEEncoder
from helios_services.config import ServiceConfig
from helios_services.deployments.replicas.load_denoiser import GB


def load_vae(config: ServiceConfig, device: torch.device) -> tuple[VAEDecoder, VAEEncoder]:
    """Both halves, warmed up on a GPU: kernels are compiled there, and cuDNN chooses how each convolution is done.

    On the thread that is to use them, as cuDNN's choices are each thread's own. Raises CheckpointError.
    """
    options = config.decoder
    if device.type == "cuda":
        use_cache(config.compile_cache)
    budget = None if options.activation_gb is None else int(options.activation_gb * GB)
    decoder = load_decoder(
        config.model.checkpoint,
        device=device,
        dtype=getattr(torch, options.decodes_in),
        activation_budget_bytes=budget,
    )
    encoder = load_encoder(config.model.checkpoint, device=device, activation_budget_bytes=budget)
    if device.type == "cuda":
        for height, width in config.model.warm_ups:
            warm_up(decoder, encoder, height, width)
    return decoder, encoder


def warm_up(decoder: VAEDecoder, encoder: VAEEncoder, height: int, width: int) -> None:
    """A chunk of zeros, and a picture, through all layers."""
    decoder.decode_for_video(torch.zeros(1, 16, LATENT_FRAMES_PER_CHUNK, height // 8, width // 8))
    encoder.condition_on_image(np.zeros((height, width, 3), np.uint8))
