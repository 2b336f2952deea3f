"""The teacher's paths that the ODE start is trained on: Mid, sampled with guidance, with its states kept.

Every section's history is the teacher's own output. Of each stage `KEPT` states are kept, evenly spread over its steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from helios_engine.configs import HISTORY_FRAMES, PYRAMID_STAGES, SolverConfig
from helios_engine.model.transformer import HeliosTransformer
from helios_engine.request import LATENT_FRAMES_PER_CHUNK
from helios_engine.sampling.guidance import guide
from helios_engine.sampling.noise import block_noise, chunk_noise, upsample
from helios_engine.sampling.scheduler import stage_schedule
from helios_engine.sampling.solvers import make_solver
from helios_training.stages.ode import GUIDANCE_SCALE
from helios_training.stages.pyramid import GAMMA
from helios_training.velocity import Conditions, velocity

KEPT = 4


@dataclass(frozen=True, kw_only=True)
class StagePath:
    """states: (KEPT, 16, 9, h_k, w_k) at local levels `sigmas`; end: (16, 9, h_k, w_k), where the stage was left."""

    states: torch.Tensor
    sigmas: tuple[float, ...]
    end: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class SectionPath:
    """One section of the teacher's video. history: (16, 19, h, w), anchor: (16, 1, h, w), as the teacher saw them."""

    stages: tuple[StagePath, ...]
    history: torch.Tensor
    anchor: torch.Tensor


@torch.no_grad()
def teacher_paths(
    teacher: HeliosTransformer,
    scheduler: SolverConfig,
    embeds: torch.Tensor,
    empty: torch.Tensor,
    size: tuple[int, int],
    seed: int,
    *,
    sections: int,
    steps: tuple[int, ...],
) -> Iterator[SectionPath]:
    """A video's sections in turn. embeds, empty: (1, 512, text_dim); size: height and width of the latents."""
    generator = torch.Generator().manual_seed(seed)
    channels = teacher.config.in_channels
    history = torch.zeros(1, channels, sum(HISTORY_FRAMES), *size)
    anchor = torch.zeros(1, channels, 1, *size)
    for section in range(sections):
        both = (embeds, empty)
        given = Conditions(history.expand(2, -1, -1, -1, -1), anchor.expand(2, -1, -1, -1, -1), torch.cat(both))
        stages = _section(teacher, scheduler, given, (1, channels, LATENT_FRAMES_PER_CHUNK, *size), steps, generator)
        yield SectionPath(stages=stages, history=history[0], anchor=anchor[0])
        made = stages[-1].end[None]
        history = torch.cat([history, made], dim=2)[:, :, -sum(HISTORY_FRAMES) :]
        anchor = made[:, :, :1] if section == 0 else anchor


def _section(
    teacher: HeliosTransformer,
    scheduler: SolverConfig,
    given: Conditions,
    shape: tuple[int, ...],
    steps: tuple[int, ...],
    generator: torch.Generator,
) -> tuple[StagePath, ...]:
    latents = chunk_noise(shape, PYRAMID_STAGES, generator)
    stages = []
    for stage in range(PYRAMID_STAGES):
        plan = stage_schedule(scheduler, stage, steps[stage], latents[0, 0].numel() // 4)
        if stage > 0:
            size = (*latents.shape[:-2], *(2 * side for side in latents.shape[-2:]))
            latents = upsample(latents, block_noise(size, GAMMA, generator), plan.alpha, plan.beta)
        solver = make_solver(scheduler, plan, latents)
        states = []
        for moment in plan.timesteps:
            states.append(latents[0])
            times = torch.full((2,), float(moment))
            told, untold = velocity(teacher, latents.expand(2, -1, -1, -1, -1), times, given).chunk(2)
            latents = solver.step(latents, guide(told, untold, GUIDANCE_SCALE))
        kept = torch.linspace(0, len(states) - 1, min(KEPT, len(states))).round().int().tolist()
        sigmas = tuple(plan.sigmas[n] for n in kept)
        stages.append(StagePath(states=torch.stack([states[n] for n in kept]), sigmas=sigmas, end=latents[0]))
    return tuple(stages)
