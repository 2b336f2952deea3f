"""Files of the teacher's paths, one for each video, and batches out of them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from helios_engine.configs import PYRAMID_STAGES
from helios_training.data.encode import world_clip
from helios_training.errors import TrainingError
from helios_training.small.parts import FrozenText, load_transformer
from helios_training.small.sizes import HEIGHT, WIDTH, small_solver
from helios_training.stages.ode import SECTIONS, TEACHER_STEPS, PathBatch
from helios_training.stages.paths import SectionPath, teacher_paths


def write_path(file: Path, caption: str, embeds: torch.Tensor, sections: Sequence[SectionPath]) -> None:
    """embeds: (512, text_dim). Whole or not at all; float16."""
    tensors = {"embeds": embeds.contiguous()}
    for number, section in enumerate(sections):
        tensors |= {f"{number}.history": section.history, f"{number}.anchor": section.anchor}
        for stage, path in enumerate(section.stages):
            tensors |= {f"{number}.{stage}.states": path.states, f"{number}.{stage}.end": path.end}
            tensors[f"{number}.{stage}.sigmas"] = torch.tensor(path.sigmas)
    halves = {name: value.half().contiguous() if "sigmas" not in name else value for name, value in tensors.items()}
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(halves, beside, metadata={"format": "pt", "prompt_raw": caption, "sections": str(len(sections))})
        beside.replace(file)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        raise TrainingError(f"{file}: cannot be written: {error}") from None


def make_paths(mid: Path, folder: Path, *, videos: int, seed: int = 0) -> Iterator[Path]:
    """Samples the teacher for scenes of the world; yields each file that was not there."""
    teacher, text = load_transformer(mid, "mid", "the ODE start"), FrozenText(mid)
    scheduler = small_solver(PYRAMID_STAGES)
    for number in range(videos):
        file = folder / f"path-{number:06}.safetensors"
        if file.exists():
            continue
        scene, clip_seed = world_clip(number, seed)
        embeds, empty = text([scene.caption]), text([""])
        size = (HEIGHT // 8, WIDTH // 8)
        made = teacher_paths(teacher, scheduler, embeds, empty, size, clip_seed, sections=SECTIONS, steps=TEACHER_STEPS)
        write_path(file, scene.caption, embeds[0], list(made))
        yield file


class PathFolder:
    """The path files of a folder. Raises TrainingError for a folder without any, or a file that is none."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(file for file in folder.glob("*.safetensors") if not file.name.startswith("."))
        if not self.files:
            raise TrainingError(f"{folder}: holds no paths; allowed: a folder that `helios encode --paths` has filled")

    def draw(self, samples: int, seed: Sequence[int]) -> PathBatch:
        """Sections and states at random, the same for the same files and seed."""
        rng = np.random.default_rng(list(seed))
        rows = [self._row(self.files[int(rng.integers(len(self.files)))], rng) for _ in range(samples)]
        return PathBatch(**{name: torch.stack([row[name] for row in rows]) for name in rows[0]})

    def _row(self, file: Path, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        try:
            with safe_open(file, framework="pt") as opened:
                section = int(rng.integers(int((opened.metadata() or {})["sections"])))
                row = {
                    "history": opened.get_tensor(f"{section}.history").float(),
                    "anchor": opened.get_tensor(f"{section}.anchor").float(),
                    "embeds": opened.get_tensor("embeds").float(),
                }
                levels = []
                for stage in range(PYRAMID_STAGES):
                    sigmas = opened.get_tensor(f"{section}.{stage}.sigmas")
                    chosen = int(rng.integers(len(sigmas)))
                    row[f"states_{stage}"] = opened.get_tensor(f"{section}.{stage}.states")[chosen].float()
                    row[f"ends_{stage}"] = opened.get_tensor(f"{section}.{stage}.end").float()
                    levels.append(sigmas[chosen])
                return row | {"sigma": torch.stack(levels)}
        except (SafetensorError, OSError, KeyError) as error:
            raise TrainingError(f"{file}: is damaged or holds no paths: {error}") from None
