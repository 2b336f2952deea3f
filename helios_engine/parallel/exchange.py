"""Exchanges of uneven pieces between the ranks of one axis. Sizes are known to both sides beforehand.

Legend: B batch, L tokens, F features.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist

from helios_engine.parallel.mesh import Axis


def all_to_all(parts: Sequence[Sequence[torch.Tensor]], receive: Sequence[int], axis: Axis) -> tuple[torch.Tensor, ...]:
    """Sends the tensors parts[i] to rank i of the axis; returns what each rank sent here, flat, receive[i] elements.

    Tensors may have any size, 0 too, and any layout. Raises RuntimeError if a rank has gone, or after the timeout.
    """
    tensors = [tensor for part in parts for tensor in part]
    packed = tensors[0].new_empty(sum(tensor.numel() for tensor in tensors))
    for piece, tensor in zip(packed.split([tensor.numel() for tensor in tensors]), tensors, strict=True):
        piece.view(tensor.shape).copy_(tensor)
    sizes = [sum(tensor.numel() for tensor in part) for part in parts]
    received = packed
    if axis.group is not None:
        received = packed.new_empty(sum(receive))
        dist.all_to_all_single(received, packed, list(receive), sizes, group=axis.group)
    pieces: tuple[torch.Tensor, ...] = received.split(list(receive))
    return pieces


def gather_tokens(x_BLF: torch.Tensor, tokens: Sequence[int], axis: Axis) -> torch.Tensor:
    """(B, tokens[own], F) of each rank to (B, sum(tokens), F) on all of them."""
    batch, _, features = x_BLF.shape
    received = all_to_all([[x_BLF]] * axis.size, [batch * count * features for count in tokens], axis)
    pieces = (piece.view(batch, count, features) for piece, count in zip(received, tokens, strict=True))
    return torch.cat(list(pieces), dim=1)


def gather_batch(x: torch.Tensor, axis: Axis) -> torch.Tensor:
    """(B, ...) of each rank to (size * B, ...) on all of them, in their order."""
    received = all_to_all([[x]] * axis.size, [x.numel()] * axis.size, axis)
    return torch.cat([piece.view(x.shape) for piece in received])
