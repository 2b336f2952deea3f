"""Trains the small Distilled: the ODE start from Mid, then distribution matching against Base."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from helios_engine.configs import PYRAMID_STAGES
from helios_engine.sampling.noise import block_noise
from helios_training.data.latents import LatentFolder
from helios_training.data.sections import SectionDraw, draw_sections
from helios_training.history.corrupt import shift_saturation
from helios_training.history.modes import ModeShares
from helios_training.lora import Adapter
from helios_training.small.parts import FrozenText, load_transformer
from helios_training.small.sizes import HEIGHT, WIDTH, small_distilled
from helios_training.stages.distilled import DistillBatch, FakeScoreObjective, StudentObjective
from helios_training.stages.gan import FIRST_STEP, Critic
from helios_training.stages.ode import ODEObjective, PathBatch
from helios_training.stages.path_files import PathFolder
from helios_training.stages.pyramid import GAMMA, noise_pyramid
from helios_training.stages.recipes import SMALL_FAKE_SCORE, SMALL_ODE, SMALL_STUDENT
from helios_training.stages.scores import Scores, draw_levels
from helios_training.stages.simulate import schedules
from helios_training.trainer import Part, Recipe

VIDEO_SHARE = 0.5
"""The share of batches whose oldest latents are missing, in training stage 3."""
ANNEALED_BY = 0.5
"""The share of the run after which the student's levels are uniform."""
FAKE_RANK = 32
SATURATED_SHARE = 0.9


class ODETask:
    """The ODE start: the student is Mid, and learns the ends of the paths that Mid itself took with guidance."""

    def __init__(
        self,
        mid: Path,
        paths: Path,
        *,
        samples: int = 8,
        recipe: Recipe = SMALL_ODE,
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        self.paths, self.samples, self.seed = PathFolder(paths), samples, seed
        self.transformer = load_transformer(mid, "mid", "stage 3").to(device)
        self.parts = [Part("ode", self.transformer, ODEObjective(self.transformer), recipe)]
        self.facts: Mapping[str, Any] = {"stage": "ode", "seed": seed}

    def batch(self, part: str, step: int) -> PathBatch:
        """Sections of the teacher's videos, a state of each pyramid stage."""
        return self.paths.draw(self.samples, (self.seed, 3, step))

    def sample(self, folder: Path, step: int) -> None:
        """Nothing: a checkpoint is written and sampled by the engine."""


class DistillTask:
    """Distribution matching with an adversarial part: the fake score steps every time, the student every fifth."""

    def __init__(
        self,
        base: Path,
        start: Path,
        latents: Path,
        *,
        total_steps: int,
        samples: int = 4,
        pyramid_steps: tuple[int, ...] = (2, 2, 2),
        student: Recipe = SMALL_STUDENT,
        fake_score: Recipe = SMALL_FAKE_SCORE,
        adversarial_from: int = FIRST_STEP,
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        """base: the teacher; start: a checkpoint of the ODE start, or Mid itself, which is harder."""
        self.clips, self.seed, self.total_steps = LatentFolder(latents), seed, total_steps
        self.draw = SectionDraw(samples=samples, shares=ModeShares(image=0.1, video=VIDEO_SHARE), no_caption_share=0.0)
        self.steps, self.adversarial_from = pyramid_steps, adversarial_from
        self.transformer = load_transformer(start, "mid", "stage 3").to(device)
        self.text = FrozenText(base)
        teacher = load_transformer(base, "base", "stage 3").to(device)
        adapter = Adapter(teacher, rank=FAKE_RANK, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            critic = Critic(teacher.config).to(device)
        scores = Scores(teacher, adapter)
        plans = schedules(small_distilled(), pyramid_steps, 9 * (HEIGHT // 8) * (WIDTH // 8) // 4)
        judges = nn.ModuleDict({"adapter": adapter, "critic": critic})
        self.parts = [
            Part("student", self.transformer, StudentObjective(self.transformer, scores, critic, plans), student),
            Part("fake", judges, FakeScoreObjective(self.transformer, scores, critic, plans), fake_score),
        ]
        self.facts: Mapping[str, Any] = {"stage": "distill", "seed": seed}

    def batch(self, part: str, step: int) -> DistillBatch:
        """The two parts' batches are of other sections."""
        student = part == "student"
        seed = (self.seed, 4, int(student), step)
        sections = draw_sections(self.clips, self.draw, seed)
        rng = np.random.default_rng((*seed, 1))
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        history = sections.history
        if rng.random() < SATURATED_SHARE:
            history = shift_saturation(history, generator)
        shape = tuple(sections.target.shape)
        annealed = min(step / (ANNEALED_BY * self.total_steps), 1.0) if student else 1.0
        return DistillBatch(
            target=sections.target,
            history=sections.history,
            anchor=sections.anchor,
            student_history=history,
            embeds=self.text(sections.captions),
            empty=self.text([""] * len(sections.captions)),
            start=noise_pyramid(torch.randn(shape, generator=generator))[0],
            jump_1=block_noise(_halved(shape, 1), GAMMA, generator),
            jump_2=block_noise(shape, GAMMA, generator),
            level=draw_levels(rng, shape[0], annealed=annealed),
            noise=sections.noise,
            more_noise=torch.randn(shape, generator=generator),
            crop=torch.tensor([rng.random(), rng.random()]).float().expand(shape[0], 2),
            exits=tuple(int(rng.integers(self.steps[stage])) for stage in range(PYRAMID_STAGES)),
            adversarial=step >= self.adversarial_from,
        )

    def sample(self, folder: Path, step: int) -> None:
        """Nothing: a checkpoint is written and sampled by the engine."""


def _halved(shape: tuple[int, ...], times: int) -> tuple[int, ...]:
    return (*shape[:-2], *(side // 2**times for side in shape[-2:]))
