"""Ring attention: keys and values go round the ranks while each rank's queries stay.

The next keys and values are on their way while the present ones are attended to. Shards may have different numbers of
tokens, 0 too. Legend: B batch, L tokens, H heads, K head width. Source: Ring Attention, section 3.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist

from helios_engine.parallel.mesh import Axis
from helios_engine.parallel.partial import PartialAttention, partial_attention


def ring_attention(
    q_BLHK: torch.Tensor, k_BLHK: torch.Tensor, v_BLHK: torch.Tensor, key_tokens: Sequence[int], axis: Axis
) -> torch.Tensor:
    """Attention of this rank's queries over the keys of all ranks; rank i of the axis holds key_tokens[i] keys."""
    batch, _, heads, width = k_BLHK.shape
    sizes = [2 * batch * count * heads * width for count in key_tokens]
    # never empty: NCCL opens its links in the first transfer, which needs every rank of the group
    buffers = [max(size, 1) for size in sizes]
    keys_values = k_BLHK.new_empty(buffers[axis.index])
    if sizes[axis.index]:
        torch.stack((k_BLHK, v_BLHK), out=keys_values.view(2, *k_BLHK.shape))
    merged: PartialAttention | None = None
    for step in range(axis.size):
        owner = (axis.index - step) % axis.size
        if step < axis.size - 1:
            coming = k_BLHK.new_empty(buffers[owner - 1])
            on_their_way = _pass_on(keys_values, coming, axis)
        if sizes[owner]:
            k, v = keys_values.view(2, batch, key_tokens[owner], heads, width)
            part = partial_attention(q_BLHK, k, v)
            merged = merged.merged(part) if merged is not None else part
        if step < axis.size - 1:
            for transfer in on_their_way:
                transfer.wait()
            keys_values = coming
    if merged is None:
        raise ValueError(f"key_tokens: {tuple(key_tokens)!r} is not allowed; allowed: at least one key")
    return merged.out_BHLK.transpose(1, 2).type_as(q_BLHK)


def _pass_on(keys_values: torch.Tensor, coming: torch.Tensor, axis: Axis) -> list[dist.Work]:
    to, source = (axis.index + 1) % axis.size, (axis.index - 1) % axis.size
    transfers = [
        dist.P2POp(dist.isend, keys_values, group=axis.group, group_peer=to),
        dist.P2POp(dist.irecv, coming, group=axis.group, group_peer=source),
    ]
    return list(dist.batch_isend_irecv(transfers))
