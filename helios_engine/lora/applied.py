"""Adapters applied beside the weights, chosen per request: one replica serves many.

Linear layers get forward hooks, and only while adapters are active: otherwise the model is the plain one, bit for bit
and at no cost. The patch embeddings' weights are read without calling the module, so that no hook would fire; they are
exchanged for merged ones for the time being.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from helios_engine.errors import InvalidField
from helios_engine.lora.adapter import Adapter, LowRank, Updates, check_scale, fitting_layers, updated


class AdapterSet:
    """Adapters of one transformer by name, in its layers' dtypes. Not safe for concurrent calls.

    device: where the layers compute; None: where their weights are, which offloaded ones' are not.

    Active adapters change `encode_text` as well as `forward`: keys and values of a prompt belong to the adapters that
    were active when they were made, so a cache of them must have `active` in its key.
    """

    def __init__(
        self,
        transformer: nn.Module,
        adapters: Mapping[str, Adapter] | None = None,
        *,
        device: str | torch.device | None = None,
    ) -> None:
        self._transformer, self._device = transformer, device
        self._adapters: dict[str, tuple[str, dict[str, LowRank]]] = {}
        self._active: tuple[tuple[str, float], ...] = ()
        self._updates: Mapping[str, Updates] = {}
        for name, adapter in (adapters or {}).items():
            self.add(name, adapter)

    @property
    def names(self) -> list[str]:
        """Names that can be activated, sorted."""
        return sorted(self._adapters)

    @property
    def active(self) -> tuple[tuple[str, float], ...]:
        """(digest, scale) of every adapter that takes part in forwards now; empty for the plain model."""
        return self._active

    @property
    def updates(self) -> Mapping[str, Updates]:
        """The updates that take part in forwards now, by layer name. For code that computes layers by other means."""
        return MappingProxyType(dict(self._updates))

    def add(self, name: str, adapter: Adapter) -> None:
        """Copies the adapter to the transformer's device under the name. Raises CheckpointError if it does not fit."""
        layers = fitting_layers(adapter, self._transformer)
        moved = {layer: update.like(layers[layer].weight, self._device) for layer, update in adapter.layers.items()}
        self._adapters[name] = adapter.digest, moved

    def remove(self, name: str) -> None:
        """Forgets the adapter. Raises InvalidField if there is none of that name."""
        self._named(name)
        del self._adapters[name]

    @contextmanager
    def activate(self, scales: Mapping[str, float]) -> Iterator[None]:
        """Has the named adapters take part in every forward inside the context, each times its scale.

        Their order does not matter, and a scale of 0 leaves an adapter out. Raises InvalidField for an unknown name or
        a scale that is no finite number, RuntimeError inside another such context.
        """
        if self._active:
            raise RuntimeError("adapters are active already; leave that context first")
        chosen = {name: check_scale(name, scales[name]) for name in sorted(scales)}
        active = [(*self._named(name), scale) for name, scale in chosen.items() if scale != 0.0]
        updates: dict[str, list[tuple[LowRank, float]]] = {}
        for _, layers, scale in active:
            for layer, update in layers.items():
                updates.setdefault(layer, []).append((update, scale))
        with ExitStack() as stack:
            stack.callback(self._deactivate)
            self._active, self._updates = tuple((digest, scale) for digest, _, scale in active), updates
            for layer, changes in updates.items():
                module = self._transformer.get_submodule(layer)
                if isinstance(module, nn.Conv3d):
                    stack.enter_context(_exchanged(module, changes))
                else:
                    stack.callback(module.register_forward_hook(_hook(changes)).remove)
            yield

    def _deactivate(self) -> None:
        self._active, self._updates = (), {}

    def _named(self, name: str) -> tuple[str, dict[str, LowRank]]:
        if name not in self._adapters:
            raise InvalidField("adapters", name, f"names of loaded adapters: {', '.join(self.names) or 'none'}")
        return self._adapters[name]


def _hook(updates: Updates) -> Callable[[nn.Module, Any, torch.Tensor], torch.Tensor]:
    """A forward hook that adds the updates to a linear layer's output."""

    def add_updates(_: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        rows = output.flatten(0, -2)  # nobody else holds a linear layer's output, so it is added to in place
        for update, scale in updates:
            down = F.linear(args[0], update.down).flatten(0, -2)
            rows.addmm_(down, update.up.T, alpha=scale * update.scaling)
            if update.bias is not None:
                rows.add_(update.bias, alpha=scale)
        return rows.view(output.shape)

    return add_updates


@contextmanager
def _exchanged(layer: nn.Conv3d, updates: Updates) -> Iterator[None]:
    """Merges the updates into the layer's parameters for the time of the context."""
    plain = dict(layer._parameters)
    weight, bias = updated(layer, updates)
    exchanged: dict[str, Any] = {"weight": weight, "bias": bias}  # no new parameters: they would hand on no gradient
    layer._parameters.update(exchanged)
    try:
        yield
    finally:
        layer._parameters.update(plain)
