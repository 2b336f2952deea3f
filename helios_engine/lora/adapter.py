"""Adapters as data: a low-rank update for each layer that they change.

Source: "LoRA: Low-Rank Adaptation of Large Language Models" (Hu et al., 2021).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from helios_engine.errors import CheckpointError, InvalidField
from helios_engine.lora.settings import is_number

Layer = nn.Linear | nn.Conv3d
"""What an adapter can change: linear layers, and the patch embeddings, which are linear in a flattened patch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LowRank:
    """Update of one layer: weight += scaling * up @ down, bias += bias; the user's scale multiplies both.

    down: (rank, in), `in` being the product of the weight's dimensions after the first; up: (out, rank); bias: (out,).
    """

    down: torch.Tensor
    up: torch.Tensor
    bias: torch.Tensor | None
    scaling: float

    def like(self, weight: torch.Tensor, device: str | torch.device | None = None) -> "LowRank":
        """The same update in the weight's dtype and on its device, or on another."""
        down, up, bias = (
            None if part is None else part.to(device or weight.device, weight.dtype)
            for part in (self.down, self.up, self.bias)
        )
        assert down is not None
        assert up is not None
        return LowRank(down=down, up=up, bias=bias, scaling=self.scaling)


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapter:
    """An adapter file's content. `layers` go by published layer name; tensors are on the CPU, as the file has them.

    digest: SHA-256 of the file and its settings, in hexadecimal. Adapters of the same digest are the same.
    """

    source: Path
    digest: str
    layers: Mapping[str, LowRank]


Updates = Sequence[tuple[LowRank, float]]
"""Updates of one layer, each with the scale that the user gives its adapter."""


def adaptable_layers(transformer: nn.Module) -> dict[str, Layer]:
    """Layers that an adapter can change, by published name."""
    return {name: module for name, module in transformer.named_modules() if isinstance(module, Layer)}


def fitting_layers(adapter: Adapter, transformer: nn.Module) -> dict[str, Layer]:
    """The layers that the adapter changes. Raises CheckpointError if it was loaded for a model of another shape."""
    layers = adaptable_layers(transformer)
    for name, update in adapter.layers.items():
        found = [update.up.shape[0], update.down.shape[1]]
        expected = list(layers[name].weight.flatten(1).shape) if name in layers else None
        if found != expected:
            raise CheckpointError(
                f"{adapter.source}: layer {name}: changes a weight of shape {found}, but the model's is {expected}"
            )
    return {name: layers[name] for name in adapter.layers}


def check_scale(name: str, scale: float) -> float:
    """Raises InvalidField unless the scale is a finite number."""
    if not is_number(scale):
        raise InvalidField(f"adapters.{name}", scale, "a finite number")
    return float(scale)


@torch.no_grad()
def updated(layer: Layer, updates: Updates) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias of the layer with the updates merged in: summed in float32, rounded once."""
    weight = layer.weight.float()  # a new tensor unless it is float32 already, and then not written to
    bias = layer.bias
    for update, scale in updates:
        up, down = (part.to(weight.device, torch.float32) for part in (update.up, update.down))
        weight = torch.addmm(weight.flatten(1), up, down, alpha=scale * update.scaling).view(weight.shape)
        if update.bias is not None:
            assert bias is not None  # `load_adapter` refuses it otherwise
            bias = bias.float() + scale * update.bias.to(bias.device, torch.float32)
    return weight.to(layer.weight.dtype), None if bias is None else bias.to(layer.weight.dtype)
