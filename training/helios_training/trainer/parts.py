"""What a run trains: one network or two in turn, each with an optimiser and perhaps an average of its weights."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from helios_training.errors import TrainingError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a part is optimised: AdamW, a linear warm-up, a cosine decay to `final_share` of the rate, clipped gradients.

    every: the part steps in each so manieth step of the run. ema_decay: of the average of its weights from step
    `ema_from` of the run on (None: none is kept).
    """

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    warmup_steps: int = 0
    final_share: float = 1.0
    every: int = 1
    ema_decay: float | None = None
    ema_from: int = 0

    def rate(self, step: int, total_steps: int) -> float:
        """The learning rate in step `step` (from 0) of so many."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        done = min(1.0, step / total_steps)
        cosine = 0.5 * (1.0 + math.cos(math.pi * done))
        return self.lr * warm * (self.final_share + (1.0 - self.final_share) * cosine)


class Part:
    """A named group of parameters under one recipe.

    objective: its forward takes a batch and returns the loss and a mapping of metrics; it contains `trained`, or calls
    it. Only parameters of `trained` that require gradients are optimised; a snapshot holds the others too.
    """

    def __init__(self, name: str, trained: nn.Module, objective: nn.Module, recipe: Recipe) -> None:
        self.name, self.trained, self.objective, self.recipe = name, trained, objective, recipe
        self.parameters = {key: value for key, value in trained.named_parameters() if value.requires_grad}
        self.kept = {key: value for key, value in trained.named_parameters() if not value.requires_grad}
        if not self.parameters:
            raise TrainingError(f"{name}: has no parameter that requires gradients")
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay
        )
        self.average: dict[str, torch.Tensor] = {}
        self.updates = 0

    def update(self, step: int, total_steps: int) -> float:
        """One step of the optimiser with the gradients at hand, which are cleared. Returns their norm before clipping.

        Raises TrainingError if they are not finite.
        """
        recipe = self.recipe
        norm = float(nn.utils.clip_grad_norm_(self.parameters.values(), recipe.clip_norm))
        if not math.isfinite(norm):
            raise TrainingError(f"{self.name}: gradients of step {step} are not finite; the last snapshot stands")
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate(step, total_steps)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        if recipe.ema_decay is not None and step >= recipe.ema_from:
            self._average(recipe.ema_decay)
        return norm

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        if not self.average:
            self.average = {name: value.detach().float().clone() for name, value in self.parameters.items()}
        for name, value in self.parameters.items():
            self.average[name].lerp_(value.float(), 1.0 - decay)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Everything that the part goes on from, by names that `restore` knows."""
        for name, value in self.kept.items():
            yield f"{self.name}.weight.{name}", value
        for name, value in self.parameters.items():
            yield f"{self.name}.weight.{name}", value
            for key in ("exp_avg", "exp_avg_sq"):
                if value in self.optimizer.state:
                    yield f"{self.name}.{key}.{name}", self.optimizer.state[value][key]
            if name in self.average:
                yield f"{self.name}.average.{name}", self.average[name]

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, torch.Tensor], updates: int, step: int) -> None:
        """Goes on from what `tensors` gave after so many updates, at this step of the run.

        Averages of steps before `ema_from` are of another recipe and are not taken. Raises TrainingError naming what
        does not fit.
        """
        self.updates = updates
        for name, value in (self.kept | self.parameters).items():
            found = tensors.get(f"{self.name}.weight.{name}")
            if found is None or found.shape != value.shape:
                shape = "is missing" if found is None else f"has shape {list(found.shape)}"
                raise TrainingError(f"{self.name}.weight.{name}: {shape}; expected {list(value.shape)}")
            value.copy_(found)
        for name, value in self.parameters.items():
            first, second = (tensors.get(f"{self.name}.{key}.{name}") for key in ("exp_avg", "exp_avg_sq"))
            if updates and second is not None:  # packed snapshots have no first moments
                self.optimizer.state[value] = {
                    "step": torch.tensor(float(updates)),
                    "exp_avg": torch.zeros_like(value) if first is None else first.to(value),
                    "exp_avg_sq": second.to(value),
                }
            average = tensors.get(f"{self.name}.average.{name}")
            if average is not None and step > self.recipe.ema_from:
                self.average[name] = average.to(value.device, torch.float32)
