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
    """Upper estimate of the bytes of a block's activations in the last pyramid stage.

    height, width: the video's, in pixels. batch: 2 where both passes of guidance run at once.

    Counted per token: ten activations of the stream's width in the model's dtype (itemsize), among them the stream, its
    norm, query, key, value and what attention makes of them; three in float32; and the feed-forward's two inner ones. A
    test holds it to what the kernels' references allocate, which is more than the kernels do.
    """
    tokens = noisy_tokens(height, width) + history_tokens(height, width)
    per_token = config.inner_dim * (10 * itemsize + 3 * 4) + config.ffn_dim * 2 * itemsize
    return batch * tokens * per_token


def forward_fits(transformer: Model, height: int, width: int, batch: int) -> bool:
    """Whether a batch of forward passes fits on the device beside the weights, whatever else runs there."""
    weight = transformer.proj_out.weight
    if weight.device.type != "cuda":
        return True
    total = torch.cuda.get_device_properties(weight.device).total_memory
    weights = sum(parameter.numel() * parameter.element_size() for parameter in transformer.parameters())
    needed = forward_bytes(transformer.config, weight.element_size(), height, width, batch)
    return needed <= total * (1.0 - RESERVE) - weights
