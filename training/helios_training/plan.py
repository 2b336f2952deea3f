"""`helios train plan`: what lies on each GPU, in bytes, before anything is loaded: sizes come from meta tensors.

At 14 B a LoRA is trained beside weights in bfloat16; gradients, optimiser and average belong to what is trained only.
Everything but activations is sharded evenly over the GPUs. Blocks are recomputed for their gradients.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from helios_engine.configs import TransformerConfig
from helios_engine.model.transformer import HeliosTransformer
from helios_engine.tokens import history_tokens, noisy_tokens
from helios_training.errors import TrainingError
from helios_training.small.sizes import small_transformer
from helios_training.stages.recipes import LORA_RANKS

Stage = Literal["base", "mid", "ode", "distill"]
Model = Literal["small", "14b"]
BFLOAT16, FLOAT32 = 2, 4
RANKS: Mapping[Stage, int] = {
    "base": LORA_RANKS[0],
    "mid": LORA_RANKS[0],
    "ode": LORA_RANKS[1],
    "distill": LORA_RANKS[1],
}
SAVED_WIDTHS = 1
"""What recomputing keeps of the activations between two blocks, in widths of the residual stream."""
INSIDE_WIDTHS = 34
"""What one block holds while it is recomputed, in widths: its norms, projections, attention and feed-forward."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Bytes on each GPU by purpose."""

    weights: int
    trained: int
    gradients: int
    optimiser: int
    average: int
    activations: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.trained + self.gradients + self.optimiser + self.average + self.activations


def plan(model: Model, stage: Stage, gpus: int, *, height: int, width: int, samples: int = 1) -> Plan:
    """samples: on each GPU. The small model is trained in full, 14 B by LoRA; stage 3 holds student and teacher.

    Raises TrainingError for a number of GPUs or a size that is not allowed.
    """
    if gpus < 1:
        raise TrainingError(f"gpus: {gpus} is not allowed; allowed: at least 1")
    for name, side in (("height", height), ("width", width)):
        if side < 16 or side % 16:
            raise TrainingError(f"{name}: {side} is not allowed; allowed: a positive multiple of 16")
    config = TransformerConfig(is_amplify_history=False) if model == "14b" else small_transformer()
    parameters, linear = parameter_counts(config, RANKS[stage])
    networks = 2 if stage == "distill" else 1
    if model == "14b":
        read, trained = networks * parameters * BFLOAT16, networks * linear
    else:
        read, trained = (networks - 1) * parameters * FLOAT32, parameters + (networks - 1) * linear
    sharded = {
        "weights": read,
        "trained": trained * FLOAT32,
        "gradients": trained * FLOAT32,
        "optimiser": 2 * trained * FLOAT32,
        "average": trained * FLOAT32 if stage in ("ode", "distill") or model == "small" else 0,
    }
    tokens = noisy_tokens(height, width) + history_tokens(height, width)
    saved = samples * tokens * config.inner_dim * BFLOAT16
    activations = saved * (SAVED_WIDTHS * config.num_layers + INSIDE_WIDTHS)
    return Plan(**{name: -(-size // gpus) for name, size in sharded.items()}, activations=activations)


def parameter_counts(config: TransformerConfig, rank: int) -> tuple[int, int]:
    """How many parameters are in the DiT, and in a LoRA of this rank on all its linear layers.

    The latter includes the memory patches, which are trained in full.
    """
    with torch.device("meta"):
        network = HeliosTransformer(config)
    adapters = sum(
        rank * (layer.in_features + layer.out_features) for layer in network.modules() if isinstance(layer, nn.Linear)
    )
    memory = (network.patch_short, network.patch_mid, network.patch_long)
    patches = sum(value.numel() for patch in memory for value in patch.parameters())
    return sum(value.numel() for value in network.parameters()), adapters + patches
