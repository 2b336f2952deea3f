"""What distribution matching compares: the real score, the teacher's, and the fake one, of what the student makes.

Both are Base in full resolution. The fake score is the same network with a LoRA switched on: two networks are resident
in training, not three. A score is given as the x0 that a network sees in x_s = (1 - s) x0 + s e.
"""

import numpy as np
import torch

from helios_engine.model.transformer import HeliosTransformer
from helios_training.lora import Adapter
from helios_training.stages.base import TIMESTEPS
from helios_training.velocity import Conditions, velocity

LOWEST, HIGHEST = 0.02, 0.98
"""Bounds of the level s that x0 is re-noised to."""
BETA_START = (4.0, 1.5)
"""The student's levels are beta-distributed so at first, uniformly at the end; the fake score's always uniformly."""
REAL_GUIDANCE = 4.0


def draw_levels(rng: np.random.Generator, count: int, *, annealed: float, shift: float = 1.0) -> torch.Tensor:
    """(count,) levels s = shift(u) within 0.02 to 0.98, u ~ Beta(4, 1.5) at annealed = 0, uniform at 1.

    shift: as a scheduler's: shift u / (1 + (shift - 1) u).
    """
    a, b = (first + (1.0 - first) * annealed for first in BETA_START)
    u = torch.from_numpy(rng.beta(a, b, count)).float()
    return (shift * u / (1.0 + (shift - 1.0) * u)).clamp(LOWEST, HIGHEST)


class Scores:
    """teacher: Base; adapter: of the fake score, on the teacher's layers."""

    def __init__(self, teacher: HeliosTransformer, adapter: Adapter) -> None:
        self.teacher, self.adapter = teacher, adapter

    @torch.no_grad()
    def real(self, x_s: torch.Tensor, level_B: torch.Tensor, given: Conditions, empty: torch.Tensor) -> torch.Tensor:
        """x0 by the teacher with guidance 4. empty: embeddings of no prompt, (B, 512, text_dim)."""
        with self.adapter.off():
            told = self._flow(x_s, level_B, given)
            untold = self._flow(x_s, level_B, given._replace(embeds=empty))
        return _x0(x_s, level_B, torch.lerp(untold, told, REAL_GUIDANCE))

    @torch.no_grad()
    def fake(self, x_s: torch.Tensor, level_B: torch.Tensor, given: Conditions) -> torch.Tensor:
        """x0 by the fake score, conditional."""
        return _x0(x_s, level_B, self._flow(x_s, level_B, given))

    def _flow(self, x_s: torch.Tensor, level_B: torch.Tensor, given: Conditions) -> torch.Tensor:
        return velocity(self.teacher, x_s, TIMESTEPS * level_B, given).float()


def noised(x0: torch.Tensor, noise: torch.Tensor, level_B: torch.Tensor) -> torch.Tensor:
    """(1 - s) x0 + s e."""
    return torch.lerp(x0, noise, level_B.view(-1, 1, 1, 1, 1))


def _x0(x_s: torch.Tensor, level_B: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    return x_s - level_B.view(-1, 1, 1, 1, 1) * flow


def matching_direction(x0: torch.Tensor, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """g = (fake - real) / mean |x0 - real|, the mean over each sample."""
    size = (x0 - real).abs().flatten(1).mean(dim=1).clamp_min(1e-6)
    return (fake - real) / size.view(-1, 1, 1, 1, 1)


def matching_loss(x0: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """1/2 mean |x0 - stopgrad(x0 - g)|^2, whose gradient by x0 is g over the number of elements."""
    goal = (x0 - direction).detach()
    return 0.5 * (x0 - goal).square().mean()
