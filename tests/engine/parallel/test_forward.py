"""The DiT over ranks against one device: every mode, uneven heads and tokens; proof that the comparison can fail."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
import torch

from engine.parallel.launch import Ranks
from engine.parallel.on_ranks import BREAKAGES, forward
from engine.parallel.tiny import ODD, PYRAMID, Case, relative_error, tiny_model, velocities
from helios_engine.parallel.degrees import ContextParallel
from helios_engine.parallel.mesh import Axis, Mesh
from helios_engine.parallel.transformer import ParallelTransformer

TOLERANCE = 1e-5

CASES = [
    Case(ulysses=2, sizes=PYRAMID),
    Case(ulysses=2, heads=3, batch=2),
    Case(ulysses=2, heads=2, layers=1, scale_mode="scalar"),
    Case(ring=2, sizes=PYRAMID),
    Case(ring=2, heads=1, batch=2),
    Case(cfg=2, batch=2),
    Case(cfg=2, batch=1),
    Case(cfg=2, batch=2, shared_history=True),
    Case(ulysses=2, batch=2, shared_history=True),
    Case(ulysses=4, sizes=PYRAMID),
    Case(ulysses=4, heads=5, batch=2),
    Case(ulysses=4, heads=4),
    Case(ring=4, sizes=PYRAMID),
    Case(ring=4, heads=3, batch=2, scale_mode="scalar"),
    Case(ulysses=2, ring=2, sizes=PYRAMID),
    Case(ulysses=2, ring=2, heads=3, batch=2),
    Case(cfg=2, ulysses=2, heads=3, batch=2, sizes=PYRAMID),
    Case(cfg=2, ring=2, batch=4),
]


@lru_cache
def single(case: Case) -> list[torch.Tensor]:
    """The same on one device."""
    return velocities(case, tiny_model(case))


def worst_error(ranks: Callable[[int], Ranks], case: Case) -> float:
    """The largest relative error over the sizes. The ranks have to agree to the bit."""
    results = ranks(case.ulysses * case.ring * case.cfg).run(forward, case)
    for other in results[1:]:
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(results[0], other, strict=True))
    expected = single(case)
    return max(relative_error(torch.from_numpy(a), b) for a, b in zip(results[0], expected, strict=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_velocity_is_that_of_one_rank(ranks: Callable[[int], Ranks], case: Case) -> None:
    assert worst_error(ranks, case) < TOLERANCE


def test_a_mesh_of_one_rank_changes_no_bit() -> None:
    one = Axis(size=1, index=0, group=None)
    mesh = Mesh(parallel=ContextParallel(), ulysses=one, ring=one, context=one, cfg=one)
    case = Case(heads=3, batch=2)
    actual = velocities(case, ParallelTransformer(tiny_model(case), mesh))
    assert all(torch.equal(a, b) for a, b in zip(actual, single(case), strict=True))


@pytest.mark.parametrize("case", [Case(ulysses=2, ring=2, heads=3, dtype=torch.bfloat16)], ids=str)
def test_bfloat16(ranks: Callable[[int], Ranks], case: Case) -> None:
    assert worst_error(ranks, case) < 3e-2


@pytest.mark.parametrize(
    "case",
    [
        Case(ring=4, broken="others dropped"),
        Case(ring=4, broken="shards weighed alike"),
        Case(ulysses=4, broken="last keys dropped"),
        Case(ulysses=2, ring=2, broken="heads in another order"),
        Case(ulysses=2, ring=2, broken="noisy shards off by one"),
        Case(ring=4, broken="one rank wrong"),
        Case(cfg=2, ulysses=2, batch=2, broken="batch halves swapped"),
    ],
    ids=lambda case: str(case.broken),
)
def test_comparison_catches(ranks: Callable[[int], Ranks], case: Case) -> None:
    assert worst_error(ranks, case) > 10 * TOLERANCE


def test_every_breakage_was_tried() -> None:
    (tried,) = [mark.args[1] for mark in test_comparison_catches.pytestmark]  # type: ignore[attr-defined]
    assert {case.broken for case in tried} == set(BREAKAGES)


def test_odd_batches_cannot_be_halved(ranks: Callable[[int], Ranks]) -> None:
    outcomes = ranks(2).outcomes(forward, Case(cfg=2, batch=3, sizes=ODD[:1]))
    assert all("batch: 3 is not allowed; allowed: 1 or an even number" in outcome.text for outcome in outcomes)


def test_a_rank_without_a_head(ranks: Callable[[int], Ranks]) -> None:
    outcomes = ranks(2).outcomes(forward, Case(ulysses=2, heads=1))
    assert all("ulysses_degree: 2 is not allowed; allowed: 1 to 1" in outcome.text for outcome in outcomes)


def test_degrees_that_are_not_the_world_size(ranks: Callable[[int], Ranks]) -> None:
    outcomes = ranks(2).outcomes(forward, Case(ulysses=2, ring=2))
    assert all("1 x 2 x 2 = 4 is not allowed; allowed: the number of ranks, 2" in outcome.text for outcome in outcomes)
