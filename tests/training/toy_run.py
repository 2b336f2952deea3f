"""A run of a few numbers; as a script `toy_run.py FOLDER STEPS PAUSE_S [RENDEZVOUS RANK]`, to be killed or doubled."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from helios_training.trainer import Part, Recipe, RunSettings, train


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """x: (B, 3); y: (B, 4)."""

    x: torch.Tensor
    y: torch.Tensor


class Fit(nn.Module):
    """Squared error of a linear layer."""

    def __init__(self, layers: nn.Module, pause_s: float) -> None:
        super().__init__()
        self.layers, self.pause_s = layers, pause_s

    def forward(self, batch: Pairs) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        time.sleep(self.pause_s)
        return (self.layers(batch.x) - batch.y).square().mean(), {}


class ToyTask:
    """Fits random pairs."""

    def __init__(self, *, recipe: Recipe | None = None, pause_s: float = 0.0) -> None:
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Linear(3, 4))
        recipe = recipe or Recipe(lr=0.01, ema_decay=0.9, warmup_steps=3)
        self.parts = [Part("toy", layers, Fit(layers, pause_s), recipe)]
        self.facts: Mapping[str, Any] = {"stage": "toy", "seed": 0}

    def batch(self, part: str, step: int) -> Pairs:
        generator = torch.Generator().manual_seed(step)
        return Pairs(x=torch.randn(8, 3, generator=generator), y=torch.randn(8, 4, generator=generator))

    def sample(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)


def losses(folder: Path) -> list[float]:
    """As the run's log tells them, step by step."""
    lines = (folder / "train.log").read_text().splitlines()
    return [float(line.split("loss ")[1].split()[0]) for line in lines]


if __name__ == "__main__":
    folder, steps, pause_s, *together = sys.argv[1:]
    if together:
        rendezvous, rank = together
        torch.distributed.init_process_group("gloo", init_method=rendezvous, rank=int(rank), world_size=2)
    settings = RunSettings(folder=Path(folder), steps=int(steps), report_every=1, save_every_s=0.1, quiet=True)
    train(ToyTask(pause_s=float(pause_s)), settings)
    if together:
        torch.distributed.destroy_process_group()
