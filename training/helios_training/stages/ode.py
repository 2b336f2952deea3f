"""Stage 3, the ODE start: the student learns where the teacher's path in each stage of the pyramid ends.

    L = 1/2 mean |(x_s - s v(x_s, t_k(s) | history, anchor, text)) - end_k|^2

x_s lies on the path that Mid took with guidance (CFG 5, 20 steps a stage). end_k is where that path left stage k. The
history is the teacher's own output. Source: Helios' stage 3; causal distillation as in CausVid (arXiv 2412.07772).
"""

from dataclasses import dataclass

import torch
from torch import nn

from helios_engine.configs import PYRAMID_STAGES
from helios_engine.model.transformer import HeliosTransformer
from helios_training.stages.pyramid import timestep
from helios_training.velocity import Conditions, velocity

GUIDANCE_SCALE = 5.0
TEACHER_STEPS = (20, 20, 20)
SECTIONS = 5


@dataclass(frozen=True, kw_only=True)
class PathBatch:
    """States on the teacher's paths. For stage k, states_k: (B, 16, 9, h_k, w_k) at local levels sigma[:, k], ends_k.

    history: (B, 16, 19, h, w) and anchor: (B, 16, 1, h, w), of the teacher's output; embeds: (B, 512, text_dim).
    """

    states_0: torch.Tensor
    states_1: torch.Tensor
    states_2: torch.Tensor
    ends_0: torch.Tensor
    ends_1: torch.Tensor
    ends_2: torch.Tensor
    sigma: torch.Tensor
    history: torch.Tensor
    anchor: torch.Tensor
    embeds: torch.Tensor

    def stage(self, stage: int) -> tuple[torch.Tensor, torch.Tensor]:
        """States and ends of a stage."""
        return getattr(self, f"states_{stage}"), getattr(self, f"ends_{stage}")


class ODEObjective(nn.Module):
    """forward: a batch of the teacher's paths to the mean over stages of the loss, and each stage's part of it."""

    def __init__(self, student: HeliosTransformer, *, recompute: bool = False) -> None:
        super().__init__()
        self.student, self.recompute = student, recompute

    def forward(self, batch: PathBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """All stages of the batch."""
        given, parts = Conditions(batch.history, batch.anchor, batch.embeds), []
        for stage in range(PYRAMID_STAGES):
            state, end = batch.stage(stage)
            sigma_B = batch.sigma[:, stage]
            flow = velocity(self.student, state, timestep(stage, sigma_B), given, recompute=self.recompute)
            reached = state - sigma_B.view(-1, 1, 1, 1, 1) * flow.float()
            parts.append(0.5 * (reached - end).square().mean() / PYRAMID_STAGES)
        return torch.stack(parts).sum(), {f"stage_{n}": part.detach() for n, part in enumerate(parts)}
