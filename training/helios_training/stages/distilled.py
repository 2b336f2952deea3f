"""Stage 3, Distilled: two objectives that take turns, the fake score's in every step, the student's in each fifth.

    student:     x0 = simulate(student);  L = 1/2 |x0 - stopgrad(x0 - g)|^2 + 0.05 softplus(-D(x0))
                 g = (fake(x_s) - real(x_s)) / mean |x0 - real(x_s)|
    fake score:  x0 = simulate(student) without gradient;  L = |v_fake(x_s) - (e - x0)|^2 + 0.01 (D's loss + R1)

One section is made, with a real past that is corrupted (its saturation on the student's copy only). The terms with D
come from step 1,000 on. Source: Helios' stage 3; distribution matching: DMD2 (arXiv 2405.14867).
"""

from dataclasses import dataclass

import torch
from torch import nn

from helios_engine.model.transformer import HeliosTransformer
from helios_engine.sampling.scheduler import StageSchedule
from helios_training.stages.base import TIMESTEPS
from helios_training.stages.gan import (
    CRITIC_WEIGHT,
    STUDENT_WEIGHT,
    Critic,
    critic_loss,
    half_crop,
    kept_gradient,
    r1,
    student_loss,
)
from helios_training.stages.scores import Scores, matching_direction, matching_loss, noised
from helios_training.stages.simulate import SimulationNoise, simulate
from helios_training.velocity import Conditions, velocity

STUDENT_EVERY = 5


@dataclass(frozen=True, kw_only=True)
class DistillBatch:
    """target: (B, 16, 9, h, w), a real section; history, anchor: its past as scores see it; student_history: with the
    student's shift of saturation besides. embeds, empty: (B, 512, text_dim), of the captions and of no prompt. start,
    jump_1, jump_2: as `SimulationNoise`. level: (B,), noise: like the target, of the score or of the fake score's own
    flow. crop: (B, 2), the same in each row. exits: steps at which the stages are left. adversarial: D takes part.
    """

    target: torch.Tensor
    history: torch.Tensor
    anchor: torch.Tensor
    student_history: torch.Tensor
    embeds: torch.Tensor
    empty: torch.Tensor
    start: torch.Tensor
    jump_1: torch.Tensor
    jump_2: torch.Tensor
    level: torch.Tensor
    noise: torch.Tensor
    more_noise: torch.Tensor
    crop: torch.Tensor
    exits: tuple[int, ...]
    adversarial: bool

    @property
    def given(self) -> Conditions:
        """What the scores are conditioned on."""
        return Conditions(self.history, self.anchor, self.embeds)

    def cropped(self, x: torch.Tensor) -> torch.Tensor:
        """This batch's window."""
        top, left = self.crop[0].tolist()
        return half_crop(x, top, left)


def student_makes(student: HeliosTransformer, batch: DistillBatch, plans: list[StageSchedule]) -> torch.Tensor:
    """x0 of the batch's captions and past."""
    given = Conditions(batch.student_history, batch.anchor, batch.embeds)
    noise = SimulationNoise(start=batch.start, jump_1=batch.jump_1, jump_2=batch.jump_2)
    return simulate(student, given, noise, plans, batch.exits)


class StudentObjective(nn.Module):
    """Trains the student; scores and critic are only asked."""

    def __init__(self, student: HeliosTransformer, scores: Scores, critic: Critic, plans: list[StageSchedule]) -> None:
        super().__init__()
        self.student, self.plans = student, plans
        self.asked = (scores, critic)  # in a tuple: neither is a part of this module

    def forward(self, batch: DistillBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Metrics: matching, and adversarial where D takes part (else 0)."""
        scores, critic = self.asked
        x0 = student_makes(self.student, batch, self.plans)
        with torch.no_grad():
            x_s = noised(x0, batch.noise, batch.level)
            real = scores.real(x_s, batch.level, batch.given, batch.empty)
            fake = scores.fake(x_s, batch.level, batch.given)
            direction = matching_direction(x0, real, fake)
        matching = matching_loss(x0, direction)
        adversarial = x0.new_zeros(())
        if batch.adversarial:

            def loss_of(made: torch.Tensor) -> torch.Tensor:
                x_s = batch.cropped(noised(made, batch.noise, batch.level))
                return student_loss(critic(scores.teacher, x_s, batch.level, batch.given))

            adversarial = kept_gradient(loss_of, x0)
        metrics = {"matching": matching.detach(), "adversarial": adversarial.detach()}
        return matching + STUDENT_WEIGHT * adversarial, metrics


class FakeScoreObjective(nn.Module):
    """Trains the fake score's adapter and the critic's heads on what the student makes."""

    def __init__(self, student: HeliosTransformer, scores: Scores, critic: Critic, plans: list[StageSchedule]) -> None:
        super().__init__()
        self.adapter, self.critic, self.plans = scores.adapter, critic, plans
        self.asked = (student, scores)

    def forward(self, batch: DistillBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Metrics: flow, critic and r1 (0 where D takes no part)."""
        student, scores = self.asked
        with torch.no_grad():
            made = student_makes(student, batch, self.plans)
        x_s = noised(made, batch.noise, batch.level)
        predicted = velocity(scores.teacher, x_s, TIMESTEPS * batch.level, batch.given).float()
        flow = (predicted - (batch.noise - made)).square().mean()
        judged = penalty = flow.new_zeros(())
        if batch.adversarial:
            real_s, made_s = (batch.cropped(noised(x, batch.more_noise, batch.level)) for x in (batch.target, made))

            def judge(x: torch.Tensor) -> torch.Tensor:
                answer: torch.Tensor = self.critic(scores.teacher, x, batch.level, batch.given)
                return answer

            judged = critic_loss(judge(real_s), judge(made_s))
            difference = batch.cropped(batch.noise)
            penalty = r1(judge, real_s, difference) + r1(judge, made_s, difference)
        metrics = {"flow": flow.detach(), "critic": judged.detach(), "r1": penalty.detach()}
        return flow + CRITIC_WEIGHT * (judged + penalty), metrics
