"""Stage 2, Mid: flow matching in a pyramid, each stage from its start to its end along a straight line.

    x_s = s start_k + (1 - s) end_k,  s ~ U(0, 1)
    L = mean |v(x_s, t_k(s) | history, anchor, text) - (start_k - end_k)|^2

The mean is over samples, each a mean over its own elements: all resolutions count alike. History keeps its full size.
Source: Helios' stage 2. The reference packs all stages into one forward; here each stage is a forward of its own.
"""

from collections.abc import Sequence

import torch
from torch import nn

from helios_engine.configs import PYRAMID_STAGES
from helios_engine.model.transformer import HeliosTransformer
from helios_training.data.sections import SectionBatch
from helios_training.stages.pyramid import clean_pyramid, endpoints, noise_pyramid, timestep
from helios_training.velocity import Conditions, velocity

FIRST_SHARES, LATER_SHARES = (0.25, 0.5, 0.25), (1 / 3, 1 / 3, 1 / 3)
"""Shares of samples at each pyramid stage: 1:2:1, then 1:1:1."""


class MidObjective(nn.Module):
    """forward: a batch to its loss and metrics; u[:, 0] draws the level, u[:, 1] the stage by `shares`."""

    def __init__(
        self,
        transformer: HeliosTransformer,
        text: nn.Module,
        *,
        shares: Sequence[float] = LATER_SHARES,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.transformer, self.text, self.shares, self.recompute = transformer, text, shares, recompute

    def forward(self, batch: SectionBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Metrics: each stage's part of the loss."""
        embeds = self.text(batch.captions).to(batch.target.device)
        bounds = torch.tensor(self.shares, device=batch.u.device).cumsum(0)[:-1]
        stage_B = torch.bucketize(batch.u[:, 1].contiguous(), bounds, right=True)
        parts = {}
        for stage in range(PYRAMID_STAGES):
            rows = (stage_B == stage).nonzero()[:, 0]
            if len(rows) == 0:
                parts[f"stage_{stage}"] = batch.target.new_zeros(())
                continue
            given = Conditions(batch.history[rows], batch.anchor[rows], embeds[rows])
            per_sample = self._stage_loss(stage, batch.target[rows], batch.noise[rows], batch.u[rows, 0], given)
            parts[f"stage_{stage}"] = per_sample.sum() / len(stage_B)
        loss = torch.stack(list(parts.values())).sum()
        return loss, {name: part.detach() for name, part in parts.items()}

    def _stage_loss(
        self, stage: int, target: torch.Tensor, noise: torch.Tensor, sigma_B: torch.Tensor, given: Conditions
    ) -> torch.Tensor:
        start, end = endpoints(clean_pyramid(target), noise_pyramid(noise), stage)
        at = torch.lerp(end, start, sigma_B.view(-1, 1, 1, 1, 1))
        predicted = velocity(self.transformer, at, timestep(stage, sigma_B), given, recompute=self.recompute)
        return (predicted.float() - (start - end)).square().flatten(1).mean(dim=1)
