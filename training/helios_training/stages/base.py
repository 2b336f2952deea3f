"""Stage 1, Base: flow matching of a section given its past, at full resolution.

    s ~ sigmoid(N(m, d)),  x_s = (1 - s) x + s e,  L = mean |v(x_s, 1000 s | history, anchor, text) - (e - x)|^2

Source: Helios' stage 1, whose levels are those of N(0, 1).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from helios_engine.model.transformer import HeliosTransformer
from helios_training.data.sections import SectionBatch
from helios_training.velocity import Conditions, velocity

TIMESTEPS = 1000.0


class Levels(NamedTuple):
    """Mean and deviation of the normal distribution whose sigmoid the noise levels follow."""

    mean: float = 0.0
    deviation: float = 1.0

    def at(self, u: torch.Tensor) -> torch.Tensor:
        """The quantiles of u in (0, 1)."""
        return torch.sigmoid(self.mean + self.deviation * torch.special.ndtri(u.clamp(1e-6, 1.0 - 1e-6)))


PUBLISHED_LEVELS = Levels()


class BaseObjective(nn.Module):
    """forward: a batch to its loss and metrics. text: prompts to embeddings, trained along where it needs gradients."""

    def __init__(
        self,
        transformer: HeliosTransformer,
        text: nn.Module,
        *,
        levels: Levels = PUBLISHED_LEVELS,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.transformer, self.text, self.levels, self.recompute = transformer, text, levels, recompute

    def forward(self, batch: SectionBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Metrics: the loss of the noisier and of the cleaner half of the samples' levels."""
        sigma_B = self.levels.at(batch.u[:, 0])
        sigma = sigma_B.view(-1, 1, 1, 1, 1)
        noisy = torch.lerp(batch.target, batch.noise, sigma)
        given = Conditions(batch.history, batch.anchor, self.embed(batch.captions))
        predicted = velocity(self.transformer, noisy, TIMESTEPS * sigma_B, given, recompute=self.recompute)
        per_sample = (predicted.float() - (batch.noise - batch.target)).square().flatten(1).mean(dim=1)
        return per_sample.mean(), {}

    def embed(self, captions: Sequence[str]) -> torch.Tensor:
        """(B, 512, text_dim)."""
        embeds: torch.Tensor = self.text(captions).to(self.transformer.proj_out.weight.device)
        return embeds
