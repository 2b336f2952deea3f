"""The process groups of a mesh of ranks, and this rank's place in it."""

from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from helios_engine.parallel.degrees import ContextParallel

DEFAULT_TIMEOUT_S = 300.0
"""After this long without an answer an exchange raises. The first one over NCCL includes setting up its links."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of the mesh as this rank sees it. `group` is None where the axis has one rank: nothing to exchange."""

    size: int
    index: int
    group: dist.ProcessGroup | None


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """cfg x ring x ulysses ranks, the last axis fastest. `context`, ring and ulysses together, shares a sequence."""

    parallel: ContextParallel
    ulysses: Axis
    ring: Axis
    context: Axis
    cfg: Axis

    @classmethod
    def build(cls, parallel: ContextParallel, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> "Mesh":
        """Makes the groups out of the initialised default process group, with its backend. All ranks call this alike.

        timeout_s holds for every exchange on the mesh (torch does not inherit it from the default group). Raises
        ValueError if the degrees do not multiply to the world size, RuntimeError without a process group.
        """
        if not dist.is_initialized():
            raise RuntimeError("no process group: call helios_engine.parallel.ranks.init_ranks first")
        parallel.check_world(dist.get_world_size())
        ranks = torch.arange(parallel.world_size).view(parallel.cfg_degree, parallel.ring_degree, -1)
        rows = {  # the groups of an axis, one per row: every rank has to take part in making each of them
            "ulysses": ranks.flatten(0, 1),
            "ring": ranks.transpose(1, 2).flatten(0, 1),
            "context": ranks.flatten(1),
            "cfg": ranks.flatten(1).T,
        }
        axes = {name: _axis(row.tolist(), timedelta(seconds=timeout_s)) for name, row in rows.items()}
        return cls(parallel=parallel, **axes)


def _axis(rows: list[list[int]], timeout: timedelta) -> Axis:
    rank = dist.get_rank()
    (mine,) = [row for row in rows if rank in row]
    group = None
    if len(mine) > 1:
        for row in rows:
            made = dist.new_group(row, timeout=timeout)
            group = made if row is mine else group
    return Axis(size=len(mine), index=mine.index(rank), group=group)
