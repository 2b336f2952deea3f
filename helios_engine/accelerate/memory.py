"""How much device memory a forward pass of the DiT takes."""

import torch

from helios_engine.configs import HISTORY_FRAMES
from helios_engine.model.transformer import HeliosTransformer
from helios_engine.parallel.transformer import ParallelTransformer
from helios_engine.request import LATENT_FRAMES_PER_CHUNK

Model = HeliosTransformer | ParallelTransformer
RESERVE = 0.1
"""Share of the device's memory that is left to the allocator's fragmentation and to others."""


def forward_bytes(transformer: Model, height: int, width: int, batch: int) -> int:
    """Upper estimate of the bytes of a block's activations in the last pyramid stage.

    height, width: the latents'. batch: 2 where both passes of guidance run at once.

    Counted per token: residual stream, normed input, query, key, value and attention output in the model's dtype,
    float32 copies of the residual stream and of what is added to it, and the feed-forward's two inner activations.
    """
    config = transformer.config
    element = transformer.proj_out.weight.element_size()
    grid = height * width // 4
    long, mid, short = HISTORY_FRAMES
    tokens = grid * (LATENT_FRAMES_PER_CHUNK + 1 + short) + grid * mid // 8 + grid * long // 64
    per_token = config.inner_dim * (6 * element + 3 * 4) + config.ffn_dim * 2 * element
    return batch * tokens * per_token


def forward_fits(transformer: Model, height: int, width: int, batch: int) -> bool:
    """Whether a batch of forward passes fits on the device beside the weights, whatever else runs there."""
    device = transformer.proj_out.weight.device
    if device.type != "cuda":
        return True
    total = torch.cuda.get_device_properties(device).total_memory
    weights = sum(parameter.numel() * parameter.element_size() for parameter in transformer.parameters())
    return forward_bytes(transformer, height, width, batch) <= total * (1.0 - RESERVE) - weights
