"""The processes that train together: one alone, or several that share every batch (torch.distributed)."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Group:
    """rank of size; a batch is split evenly."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Group":
        """That of torch.distributed if it is initialised (Ray Train does so), else one process alone."""
        if dist.is_available() and dist.is_initialized():
            return cls(rank=dist.get_rank(), size=dist.get_world_size())
        return cls()

    @property
    def leads(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def wrap(self, objective: nn.Module) -> nn.Module:
        """The objective with gradients averaged over the group after each backward pass."""
        if self.size == 1:
            return objective
        return nn.parallel.DistributedDataParallel(objective)

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """The means over all processes, the same on each."""
        if self.size == 1:
            return values
        together = torch.tensor([values[name] for name in sorted(values)], dtype=torch.float64)
        dist.all_reduce(together)
        return dict(zip(sorted(values), (together / self.size).tolist(), strict=True))
