"""Stage 3, backward simulation: what the student makes in few steps, with gradients of one step in each stage.

Legend: k stage, s local noise level. In each stage an exit step is given: the steps before it have no gradient,

    x0 = x - s v,   x = (1 - s') x0 + s' start_k   (re-noised with the stage's own start),

the exit step has one, and its x0 goes up by the jump: start_{k+1} = alpha doubled(x0) + beta block noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from helios_engine.configs import PYRAMID_STAGES, SchedulerConfig
from helios_engine.model.transformer import HeliosTransformer
from helios_engine.sampling.scheduler import StageSchedule, stage_schedule
from helios_training.stages.pyramid import doubled
from helios_training.velocity import Conditions, velocity


def schedules(config: SchedulerConfig, steps: Sequence[int], tokens: int) -> list[StageSchedule]:
    """The student's steps in each stage, as it is sampled with. tokens: of the full-resolution latents."""
    stages = range(PYRAMID_STAGES)
    seen = [tokens // 4 ** max(PYRAMID_STAGES - 1 - max(stage - 1, 0), 0) for stage in stages]  # of the stage before
    return [stage_schedule(config, stage, steps[stage], seen[stage]) for stage in stages]


@dataclass(frozen=True, kw_only=True)
class SimulationNoise:
    """start: (B, 16, 9, h/4, w/4), N(0, 1). jump_1, jump_2: block noise of the two finer stages' sizes."""

    start: torch.Tensor
    jump_1: torch.Tensor
    jump_2: torch.Tensor


def simulate(
    student: HeliosTransformer,
    given: Conditions,
    noise: SimulationNoise,
    plans: Sequence[StageSchedule],
    exits: Sequence[int],
    *,
    recompute: bool = False,
) -> torch.Tensor:
    """The full-resolution x0, (B, 16, 9, h, w). exits: the step of each stage that leaves it, from 0."""
    x = noise.start
    for stage, (plan, leave) in enumerate(zip(plans, exits, strict=True)):
        if stage > 0:
            x = plan.alpha * doubled(x) + plan.beta * (noise.jump_1 if stage == 1 else noise.jump_2)
        start = x
        for step in range(leave + 1):
            with torch.set_grad_enabled(step == leave and torch.is_grad_enabled()):
                times = torch.full((len(x),), plan.timesteps[step], device=x.device)
                flow = velocity(student, x, times, given, recompute=recompute and step == leave)
                x0 = x - plan.sigmas[step] * flow.float()
                if step < leave:
                    x = torch.lerp(x0, start, plan.sigmas[step + 1])
        x = x0
    return x
