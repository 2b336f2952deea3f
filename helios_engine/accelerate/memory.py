"""How much device memory a forward pass of the DiT takes."""

import torch

from helios_engine.configs import TransformerConfig
from helios_engine.model.transformer import HeliosTransformer
from helios_engine.parallel.transformer import ParallelTransformer
from helios_engine.tokens import history_tokens, noisy_tokens

Model = HeliosTransformer | ParallelTransformer
RESERVE = 0.1
"""Share of the device's memory that is left to the allocator's fragmentation and to others."""


def forward_bytes(config: TransformerConfig, itemsize: int, height: int, width: int, batch: int) -> int:
    """Upper estimate of a block's activations at the finest stage. height, width: of the video, in pixels.

    Counted per token: residual stream, normed input, query, key, value and attention output in the model's dtype
    (itemsize), float32 copies of the residual stream and of what is added to it, and the feed-forward's two inner
    activations.
    """
    tokens = noisy_tokens(height, width) + history_tokens(height, width)
    per_token = config.inner_dim * (6 * itemsize + 3 * 4) + config.ffn_dim * 2 * itemsize
    return batch * tokens * per_token


def forward_fits(transformer: Model, height: int, width: int, batch: int) -> bool:
    """Whether a batch of forward passes fits beside the weights: a function of the device, not of what else runs."""
    weight = transformer.proj_out.weight
    if weight.device.type != "cuda":
        return True
    total = torch.cuda.get_device_properties(weight.device).total_memory
    weights = sum(parameter.numel() * parameter.element_size() for parameter in transformer.parameters())
    needed = forward_bytes(transformer.config, weight.element_size(), height, width, batch)
    return needed <= total * (1.0 - RESERVE) - weights
