"""Names and shapes of the tensors that a component is made of, without loading any."""

import torch
from torch import nn

from helios_engine.configs import TransformerConfig, VAEConfig
from helios_engine.model.transformer import HeliosTransformer
from helios_engine.vae.decoder import WanDecoder
from helios_engine.vae.encoder import WanEncoder


def shapes(module: nn.Module) -> dict[str, torch.Size]:
    """Names and shapes of a module's parameters."""
    return {name: parameter.shape for name, parameter in module.named_parameters()}


def transformer_shapes(config: TransformerConfig) -> dict[str, torch.Size]:
    """Names and shapes of a transformer folder's tensors."""
    with torch.device("meta"):
        return shapes(HeliosTransformer(config))


def vae_shapes(config: VAEConfig) -> dict[str, torch.Size]:
    """Names and shapes of a published VAE folder's tensors, both halves."""
    with torch.device("meta"):
        return shapes(WanDecoder(config)) | shapes(WanEncoder(config))
