"""Degrees, shards and joining: what is checked before any exchange."""

from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from helios_engine.parallel.degrees import ContextParallel
from helios_engine.parallel.mesh import Mesh
from helios_engine.parallel.ranks import init_ranks, leave_ranks
from helios_engine.parallel.shards import SequenceShards, split_sizes


@pytest.mark.parametrize("field", ["ulysses_degree", "ring_degree", "cfg_degree"])
@pytest.mark.parametrize("value", [0, -1, 1.0, "2", True, None])
def test_degrees_are_integers_from_1(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{field}: .* is not allowed; allowed: an integer from 1"):
        ContextParallel(**{field: value})


def test_cfg_has_two_halves() -> None:
    with pytest.raises(ValueError, match="cfg_degree: 3 is not allowed; allowed: 1 or 2"):
        ContextParallel(cfg_degree=3)


def test_degrees_multiply_to_the_world() -> None:
    parallel = ContextParallel(ulysses_degree=2, ring_degree=3, cfg_degree=2)
    assert (parallel.context_degree, parallel.world_size) == (6, 12)
    parallel.check_world(12)
    with pytest.raises(ValueError, match="2 x 3 x 2 = 12 is not allowed; allowed: the number of ranks, 8"):
        parallel.check_world(8)


def test_every_ulysses_rank_has_a_head() -> None:
    ContextParallel(ulysses_degree=5).check_heads(5)
    with pytest.raises(ValueError, match="ulysses_degree: 5 is not allowed; allowed: 1 to 4"):
        ContextParallel(ulysses_degree=5).check_heads(4)


@pytest.mark.parametrize("total", range(12))
@pytest.mark.parametrize("parts", range(1, 6))
def test_split_sizes(total: int, parts: int) -> None:
    sizes = split_sizes(total, parts)
    assert len(sizes) == parts
    assert sum(sizes) == total
    assert max(sizes) - min(sizes) <= 1
    assert sizes == tuple(sorted(sizes, reverse=True))


def test_shards_cover_each_part_once_and_in_order() -> None:
    shards = SequenceShards.split(7, 9, 4)
    slices = [shards.slices(rank) for rank in range(4)]
    assert [i for history, _ in slices for i in range(7)[history]] == list(range(7))
    assert [i for _, noisy in slices for i in range(9)[noisy]] == list(range(9))
    assert shards.all == (5, 4, 4, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "mpi"}, "backend: 'mpi' is not allowed; allowed: 'gloo', 'nccl'"),
        ({"world_size": 0}, "world_size: 0 is not allowed; allowed: an integer from 1"),
        ({"rank": 2}, "rank: 2 is not allowed; allowed: 0 to 1"),
        ({"rank": -1}, "rank: -1 is not allowed; allowed: 0 to 1"),
        ({"init_method": "localhost:1"}, "init_method: 'localhost:1' is not allowed; allowed: 'tcp://host:port'"),
        ({"timeout_s": 0.0}, "timeout_s: 0.0 is not allowed; allowed: a positive number"),
    ],
)
def test_joining_with_wrong_arguments(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"rank": 0, "world_size": 2, "init_method": "tcp://127.0.0.1:1", "backend": "gloo"}
    with pytest.raises(ValueError, match=message):
        init_ranks(**arguments | change)


def test_the_others_do_not_come(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="rank 0 of 2 found no process group at file://"):
        init_ranks(rank=0, world_size=2, init_method=f"file://{tmp_path}/meeting", backend="gloo", timeout_s=1.0)
    assert not dist.is_initialized()


def test_no_process_group() -> None:
    with pytest.raises(RuntimeError, match="no process group: call helios_engine"):
        Mesh.build(ContextParallel())
    leave_ranks()  # without a group, nothing happens
