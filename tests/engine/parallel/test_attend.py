"""The sharded attention alone, over shards as uneven as can be, empty ones too."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engine.parallel.launch import Ranks
from engine.parallel.on_ranks import attention, attention_inputs


@pytest.mark.parametrize("degrees", [(4, 1), (1, 4), (2, 2)], ids=["ulysses", "ring", "both"])
@pytest.mark.parametrize("heads", [4, 7])
@pytest.mark.parametrize(
    ("queries", "keys"),
    [
        ((3, 3, 2, 2), (5, 5, 5, 4)),
        ((1, 0, 7, 2), (9, 1, 0, 3)),
        ((0, 0, 0, 3), (0, 0, 0, 5)),
        ((2, 1, 0, 0), (1, 0, 0, 0)),
    ],
)
def test_attention_of_any_shards(
    ranks: Callable[[int], Ranks],
    degrees: tuple[int, int],
    heads: int,
    queries: tuple[int, ...],
    keys: tuple[int, ...],
) -> None:
    shards = ranks(4).run(attention, *degrees, heads, queries, keys)
    assert tuple(shard.shape[1] for shard in shards) == queries
    q, k, v = (t.double().transpose(1, 2) for t in attention_inputs(heads, sum(queries), sum(keys)))
    expected = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    actual = torch.from_numpy(np.concatenate(shards, axis=1)).double()
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_no_keys_at_all(ranks: Callable[[int], Ranks]) -> None:
    outcomes = ranks(2).outcomes(attention, 1, 2, 2, (1, 1), (0, 0))
    assert all("allowed: at least one key" in outcome.text for outcome in outcomes)
