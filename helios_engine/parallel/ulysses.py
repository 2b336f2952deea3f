"""Ulysses: an all-to-all turns a shard of the tokens with all heads into all tokens with a shard of the heads.

Neither the tokens nor the heads need to divide by the number of ranks: the splits of the all-to-all are uneven.
Legend: B batch, L tokens, H heads, K head width. Source: DeepSpeed-Ulysses, section 3.
"""

from collections.abc import Sequence

import torch

from helios_engine.parallel.exchange import all_to_all
from helios_engine.parallel.mesh import Axis
from helios_engine.parallel.shards import split_sizes


def scatter_heads(
    tensors_BLHK: Sequence[torch.Tensor], tokens: Sequence[Sequence[int]], axis: Axis
) -> list[torch.Tensor]:
    """(B, own tokens, all heads, K) to (B, all tokens, own heads, K), for several tensors in one exchange.

    tokens[t][i]: tokens of tensor t that rank i of the axis holds.
    """
    batch, _, heads, width = tensors_BLHK[0].shape
    shares = split_sizes(heads, axis.size)
    own = shares[axis.index]
    parts = list(zip(*(tensor.split(list(shares), dim=2) for tensor in tensors_BLHK), strict=True))
    sizes = [[batch * counts[rank] * own * width for counts in tokens] for rank in range(axis.size)]
    received = all_to_all(parts, [sum(size) for size in sizes], axis)
    pieces = [flat.split(size) for flat, size in zip(received, sizes, strict=True)]  # [rank][tensor]
    return [
        torch.cat([pieces[rank][t].view(batch, count, own, width) for rank, count in enumerate(counts)], dim=1)
        for t, counts in enumerate(tokens)
    ]


def gather_heads(x_BLHK: torch.Tensor, tokens: Sequence[int], heads: int, axis: Axis) -> torch.Tensor:
    """(B, all tokens, own heads, K) back to (B, own tokens, all heads, K)."""
    batch, _, _, width = x_BLHK.shape
    own = tokens[axis.index]
    shares = split_sizes(heads, axis.size)
    parts = [[part] for part in x_BLHK.split(list(tokens), dim=1)]
    received = all_to_all(parts, [batch * own * share * width for share in shares], axis)
    pieces = (flat.view(batch, own, share, width) for flat, share in zip(received, shares, strict=True))
    return torch.cat(list(pieces), dim=2)
