"""Low-rank adapters that are trained, on a network's linear layers, and can be switched off: one network then is two.

y = W x + scale B A x,   A: (rank, in) random, B: (out, rank) zero at first
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from helios_training.errors import TrainingError


class Adapter(nn.Module):
    """A and B of every linear layer of `network`, whose own weights are frozen. alpha: scale = alpha / rank."""

    def __init__(self, network: nn.Module, *, rank: int, alpha: float | None = None, seed: int = 0) -> None:
        super().__init__()
        layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear)}
        if not layers or rank < 1:
            raise TrainingError(
                f"rank: {rank} of {len(layers)} linear layers; allowed: at least 1 of at least one layer"
            )
        network.requires_grad_(False)
        self.scale, self.on = (rank if alpha is None else alpha) / rank, True
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        generator = torch.Generator().manual_seed(seed)
        for name, layer in layers.items():
            key, weight = name.replace(".", "/"), layer.weight
            bound = math.sqrt(3.0 / layer.in_features)
            start = (2.0 * torch.rand(rank, layer.in_features, generator=generator) - 1.0) * bound
            self.down[key] = nn.Parameter(start.to(weight.device))
            self.up[key] = nn.Parameter(torch.zeros(layer.out_features, rank, device=weight.device))
            layer.register_forward_hook(self._hook(key))

    def _hook(self, key: str):  # type: ignore[no-untyped-def]
        def add(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            if not self.on:
                return output
            low = F.linear(inputs[0], self.down[key].type_as(output))
            return output + self.scale * F.linear(low, self.up[key].type_as(output))

        return add

    @contextmanager
    def off(self) -> Iterator[None]:
        """The network as it was, inside."""
        before, self.on = self.on, False
        try:
            yield
        finally:
            self.on = before

    @torch.no_grad()
    def published(self, prefix: str = "transformer.") -> dict[str, torch.Tensor]:
        """The adapter in diffusers' format, which the engine loads: `{prefix}{layer}.lora_A.weight` and `lora_B`."""
        tensors = {}
        for key, down in self.down.items():
            name = prefix + key.replace("/", ".")
            tensors[f"{name}.lora_A.weight"] = down.detach().clone()
            tensors[f"{name}.lora_B.weight"] = self.scale * self.up[key].detach()
        return tensors
