"""Adapters merged into the weights once, at start: no cost per step, but the replica serves these alone."""

from collections.abc import Sequence

import torch
from torch import nn

from helios_engine.lora.adapter import Adapter, Layer, LowRank, check_scale, fitting_layers, updated


@torch.no_grad()
def merge(transformer: nn.Module, adapters: Sequence[tuple[Adapter, float]]) -> None:
    """Adds the adapters, each times its scale, to the transformer's weights, in place and for good.

    A weight is summed in float32 and rounded to its dtype once, however many adapters change it. Raises CheckpointError
    if an adapter does not fit the transformer, InvalidField if a scale is no finite number; the weights are then as
    they were. What was computed from them before (keys and values of prompts) is stale.
    """
    updates: dict[str, list[tuple[LowRank, float]]] = {}
    layers: dict[str, Layer] = {}
    for adapter, scale in adapters:
        checked = check_scale(adapter.source.name, scale)
        layers |= fitting_layers(adapter, transformer)
        for name, update in adapter.layers.items():
            updates.setdefault(name, []).append((update, checked))
    for name, layer in layers.items():
        weight, bias = updated(layer, updates[name])
        layer.weight.copy_(weight)
        if bias is not None and layer.bias is not None:
            layer.bias.copy_(bias)
