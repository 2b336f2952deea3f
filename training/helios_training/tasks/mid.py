"""Trains the small Mid from Base: the DiT in full, in a pyramid; the text encoder is Base's and stays as it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helios_training.data.latents import LatentFolder
from helios_training.data.sections import SectionBatch, SectionDraw, draw_sections
from helios_training.small.parts import FrozenText, load_transformer
from helios_training.stages.mid import MidObjective
from helios_training.stages.recipes import SMALL_MID
from helios_training.trainer import Part, Recipe


class MidTask:
    """Stage 2 on a folder of latents."""

    def __init__(
        self,
        base: Path,
        latents: Path,
        *,
        samples: int = 16,
        recipe: Recipe = SMALL_MID,
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        """base: the checkpoint that stage 1 has made."""
        self.clips, self.seed = LatentFolder(latents), seed
        self.draw = SectionDraw(samples=samples)
        self.transformer = load_transformer(base, "base", "stage 2").to(device)
        self.parts = [Part("mid", self.transformer, MidObjective(self.transformer, FrozenText(base)), recipe)]
        self.facts: Mapping[str, Any] = {"stage": "mid", "seed": seed}

    def batch(self, part: str, step: int) -> SectionBatch:
        """Sections of clips with their past."""
        return draw_sections(self.clips, self.draw, (self.seed, 2, step))

    def sample(self, folder: Path, step: int) -> None:
        """Nothing: a checkpoint is written and sampled by the engine."""
