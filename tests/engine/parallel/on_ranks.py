"""What the rank processes run; and ways to break it, to prove that the comparisons can fail."""

import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch

from engine.parallel.tiny import Case, tiny_model, velocities
from helios_engine.parallel.attend import ParallelAttend
from helios_engine.parallel.degrees import ContextParallel
from helios_engine.parallel.exchange import gather_batch
from helios_engine.parallel.mesh import Mesh
from helios_engine.parallel.partial import PartialAttention, partial_attention
from helios_engine.parallel.shards import SequenceShards, split_slices
from helios_engine.parallel.transformer import ParallelTransformer
from helios_engine.parallel.ulysses import gather_heads, scatter_heads


def forward(rank: int, case: Case) -> list[np.ndarray[Any, Any]]:
    """The case's velocities on its mesh."""
    parallel = ContextParallel(ulysses_degree=case.ulysses, ring_degree=case.ring, cfg_degree=case.cfg)
    model = ParallelTransformer(tiny_model(case), Mesh.build(parallel, timeout_s=120))
    with BREAKAGES[case.broken](rank) if case.broken else contextlib.nullcontext():
        return [velocity.numpy() for velocity in velocities(case, model)]


def attention(
    rank: int, ulysses: int, ring_degree: int, heads: int, queries: tuple[int, ...], keys: tuple[int, ...]
) -> np.ndarray[Any, Any]:
    """Attention alone, of `attention_inputs` cut into shards of any sizes: this rank's queries."""
    mesh = Mesh.build(ContextParallel(ulysses_degree=ulysses, ring_degree=ring_degree), timeout_s=120)
    q, k, v = attention_inputs(heads, sum(queries), sum(keys))
    run = ParallelAttend(mesh=mesh, query_tokens=queries, key_tokens=keys)
    own = [x.split(sizes, dim=1)[rank] for x, sizes in ((q, list(queries)), (k, list(keys)), (v, list(keys)))]
    out: np.ndarray[Any, Any] = run(*own).numpy()
    return out


def attention_inputs(heads: int, queries: int, keys: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random q, k, v, batch 2, head width 8; scores are large enough that the shares of the shards differ widely."""
    generator = torch.Generator().manual_seed(7)
    q, k, v = (torch.randn(2, tokens, heads, 8, generator=generator) for tokens in (queries, keys, keys))
    return q * 4, k * 4, v


def _patched(target: str, wrong: Any) -> contextlib.AbstractContextManager[Any]:
    return mock.patch(f"helios_engine.parallel.{target}", wrong)


def _mean(self: PartialAttention, other: PartialAttention) -> PartialAttention:
    return PartialAttention(out_BHLK=(self.out_BHLK + other.out_BHLK) / 2, lse_BHL=self.lse_BHL)


def _without_last_keys(tensors: Any, tokens: Any, axis: Any) -> Any:
    q, k, v = scatter_heads(tensors, tokens, axis)
    return q, k[:, : -tokens[1][-1]], v[:, : -tokens[1][-1]]


def _one_off(shards: SequenceShards, rank: int) -> tuple[slice, slice]:
    history, noisy = split_slices(shards.history)[rank], split_slices(shards.noisy)[rank]
    return history, slice(noisy.start - 1, noisy.stop - 1) if rank else noisy


def _wrong_on_rank_1(rank: int) -> Any:
    return lambda q, k, v: partial_attention(q, k.flip(1) if rank == 1 else k, v)


BREAKAGES: dict[str, Callable[[int], contextlib.AbstractContextManager[Any]]] = {
    "others dropped": lambda rank: _patched("partial.PartialAttention.merged", lambda self, other: self),
    "shards weighed alike": lambda rank: _patched("partial.PartialAttention.merged", _mean),
    "last keys dropped": lambda rank: _patched("attend.scatter_heads", _without_last_keys),
    "heads in another order": lambda rank: _patched(
        "attend.gather_heads", lambda *args: gather_heads(*args).roll(1, 2)
    ),
    "noisy shards off by one": lambda rank: _patched("shards.SequenceShards.slices", _one_off),
    "one rank wrong": lambda rank: _patched("ring.partial_attention", _wrong_on_rank_1(rank)),
    "batch halves swapped": lambda rank: _patched(
        "transformer.gather_batch", lambda *args: gather_batch(*args).flip(0)
    ),
}
"""Ways to break what a rank does, by name; each takes the rank."""
