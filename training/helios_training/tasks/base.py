"""Trains the small Base: the DiT in full and the text encoder along with it, from nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from helios_training.data.latents import LatentFolder
from helios_training.data.sections import SectionBatch, SectionDraw, draw_sections
from helios_training.small.sizes import small_transformer
from helios_training.small.start import fresh_transformer
from helios_training.small.text import SmallText
from helios_training.stages.base import BaseObjective
from helios_training.stages.recipes import SMALL_BASE, SMALL_LEVELS
from helios_training.trainer import Part, Recipe


class BaseTask:
    """Stage 1 on a folder of latents."""

    def __init__(
        self, latents: Path, *, samples: int = 8, recipe: Recipe = SMALL_BASE, device: str = "cpu", seed: int = 0
    ) -> None:
        torch.manual_seed(seed)
        self.clips, self.seed = LatentFolder(latents), seed
        self.draw = SectionDraw(samples=samples)
        self.transformer, self.text = fresh_transformer(small_transformer(), seed), SmallText()
        networks = nn.ModuleDict({"transformer": self.transformer, "text": self.text}).to(device)
        self.parts = [Part("base", networks, BaseObjective(self.transformer, self.text, levels=SMALL_LEVELS), recipe)]
        self.facts: Mapping[str, Any] = {"stage": "base", "seed": seed}

    def batch(self, part: str, step: int) -> SectionBatch:
        """Sections of clips with their past."""
        return draw_sections(self.clips, self.draw, (self.seed, step))

    def sample(self, folder: Path, step: int) -> None:
        """Nothing: a checkpoint is written and sampled by the engine."""
