"""A module's parameters in one flat buffer: one allocation and one copy instead of one for each of them."""

from dataclasses import dataclass

import torch
from torch import nn

ALIGNMENT = 256
"""Bytes. Matrix kernels are chosen by the alignment of what they read; allocators of torch give at least 64."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Which parameter lies where. `size`: bytes of the buffer, gaps included."""

    parameters: tuple[nn.Parameter, ...]
    offsets: tuple[int, ...]
    size: int

    def fill(self, buffer: torch.Tensor) -> None:
        """Copies the parameters' values into `buffer`, (size,) uint8 on any device."""
        for parameter, view in zip(self.parameters, self._views(buffer), strict=True):
            view.copy_(parameter.data)

    def point_to(self, buffer: torch.Tensor) -> None:
        """Makes the parameters views of `buffer`, which holds their values; what they held before is let go."""
        for parameter, view in zip(self.parameters, self._views(buffer), strict=True):
            parameter.data = view

    def _views(self, buffer: torch.Tensor) -> list[torch.Tensor]:
        return [
            buffer[offset : offset + parameter.nbytes].view(parameter.dtype).view(parameter.shape)
            for parameter, offset in zip(self.parameters, self.offsets, strict=True)
        ]


def packing(module: nn.Module) -> Packing:
    """Packs the module's parameters in their order. Raises ValueError for a module with buffers, which would stay."""
    buffers = [name for name, _ in module.named_buffers()]
    if buffers:
        raise ValueError(f"{type(module).__name__}: buffer {buffers[0]!r} is not allowed; allowed: parameters only")
    parameters, offsets, end = tuple(module.parameters()), [], 0
    for parameter in parameters:
        offsets.append(end)
        end += -(-parameter.nbytes // ALIGNMENT) * ALIGNMENT
    return Packing(parameters=parameters, offsets=tuple(offsets), size=end)
