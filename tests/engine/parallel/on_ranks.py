"""What the rank processes run; and ways to break it, to prove that the comparisons can fail."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch

from engine.parallel.tiny import Case, tiny_model, velocities
from helios_engine.parallel import attend, ring
from helios_engine.parallel.degrees import ContextParallel
from helios_engine.parallel.mesh import Mesh
from helios_engine.parallel.partial import PartialAttention
from helios_engine.parallel.shards import SequenceShards
from helios_engine.parallel.transformer import ParallelTransformer


def forward(rank: int, case: Case) -> list[np.ndarray[Any, Any]]:
    """The case's velocities on its mesh."""
    parallel = ContextParallel(ulysses_degree=case.ulysses, ring_degree=case.ring, cfg_degree=case.cfg)
    model = ParallelTransformer(tiny_model(case), Mesh.build(parallel, timeout_s=20))
    with BREAKAGES[case.broken](rank) if case.broken else contextlib.nullcontext():
        return [velocity.numpy() for velocity in velocities(case, model)]


def attention(
    rank: int, ulysses: int, ring_degree: int, heads: int, queries: tuple[int, ...], keys: tuple[int, ...]
) -> np.ndarray[Any, Any]:
    """Attention alone, of `attention_inputs` cut into shards of any sizes: this rank's queries."""
    mesh = Mesh.build(ContextParallel(ulysses_degree=ulysses, ring_degree=ring_degree), timeout_s=20)
    q, k, v = attention_inputs(heads, sum(queries), sum(keys))
    run = attend.ParallelAttend(mesh=mesh, query_tokens=queries, key_tokens=keys)
    own = [x.split(sizes, dim=1)[rank] for x, sizes in ((q, list(queries)), (k, list(keys)), (v, list(keys)))]
    out: np.ndarray[Any, Any] = run(*own).numpy()
    return out


def attention_inputs(heads: int, queries: int, keys: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random q, k, v, batch 2, head width 8; scores are large enough that the shares of the shards differ widely."""
    generator = torch.Generator().manual_seed(7)
    q, k, v = (torch.randn(2, tokens, heads, 8, generator=generator) for tokens in (queries, keys, keys))
    return q * 4, k * 4, v


@contextlib.contextmanager
def _others_dropped(rank: int) -> Iterator[None]:
    with mock.patch.object(PartialAttention, "merged", lambda self, other: self):
        yield


@contextlib.contextmanager
def _shards_weighed_alike(rank: int) -> Iterator[None]:
    def mean(self: PartialAttention, other: PartialAttention) -> PartialAttention:
        return PartialAttention(out_BHLK=(self.out_BHLK + other.out_BHLK) / 2, lse_BHL=self.lse_BHL)

    with mock.patch.object(PartialAttention, "merged", mean):
        yield


@contextlib.contextmanager
def _last_keys_dropped(rank: int) -> Iterator[None]:
    scatter = attend.scatter_heads

    def dropping(tensors: Any, tokens: Any, axis: Any) -> Any:
        q, k, v = scatter(tensors, tokens, axis)
        return q, k[:, : -tokens[1][-1]], v[:, : -tokens[1][-1]]

    with mock.patch.object(attend, "scatter_heads", dropping):
        yield


@contextlib.contextmanager
def _heads_in_another_order(rank: int) -> Iterator[None]:
    gather = attend.gather_heads
    with mock.patch.object(attend, "gather_heads", lambda *args: gather(*args).roll(1, 2)):
        yield


@contextlib.contextmanager
def _noisy_off_by_one(rank: int) -> Iterator[None]:
    slices = SequenceShards.slices

    def shifted(self: SequenceShards, index: int) -> tuple[slice, slice]:
        history, noisy = slices(self, index)
        return history, slice(max(0, noisy.start - 1), max(0, noisy.start - 1) + noisy.stop - noisy.start)

    with mock.patch.object(SequenceShards, "slices", shifted):
        yield


@contextlib.contextmanager
def _one_rank_wrong(rank: int) -> Iterator[None]:
    attended = ring.partial_attention

    def wrong(q: Any, k: Any, v: Any) -> Any:
        return attended(q, k.flip(1), v) if rank == 1 else attended(q, k, v)

    with mock.patch.object(ring, "partial_attention", wrong):
        yield


BREAKAGES: dict[str, Callable[[int], contextlib.AbstractContextManager[None]]] = {
    "others dropped": _others_dropped,
    "shards weighed alike": _shards_weighed_alike,
    "last keys dropped": _last_keys_dropped,
    "heads in another order": _heads_in_another_order,
    "noisy shards off by one": _noisy_off_by_one,
    "one rank wrong": _one_rank_wrong,
}
