"""A small classifier of the world's clips, whose features the Fréchet distance compares. Trained from a seed, kept."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from benchmarks.bench.videos import Frames
from helios_training.world import Scene, draw_clip, training_scenes
from helios_training.world.scenes import COLOURS, DIAMETERS, DIRECTIONS, PLACES, SHAPES, SPEEDS

HEIGHT, WIDTH = 32, 64
"""What it looks at; frames are made as small."""
FEATURES = 32
APART = 4
"""Frames between the two that are looked at together, so that motion is seen."""
WORDS = {
    "size": tuple(DIAMETERS),
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "speed": tuple(SPEEDS),
    "direction": tuple(DIRECTIONS),
    "place": PLACES,
}


@dataclass(frozen=True, kw_only=True)
class Training:
    """clips: drawn once, of training scenes. steps of `batch` clips each, Adam with a cosine of `lr`."""

    seed: int = 0
    clips: int = 1200
    steps: int = 400
    batch: int = 32
    lr: float = 3e-3


class Classifier(nn.Module):
    """Names a clip's words from two of its frames."""

    def __init__(self) -> None:
        super().__init__()
        widths = (6, 16, 32, 48, 64)
        self.body = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(4, b), nn.SiLU())
                for a, b in pairwise(widths)
            )
        )
        self.neck = nn.Linear(2 * widths[-1], FEATURES)
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURES, len(words)) for name, words in WORDS.items()})

    def features(self, pairs: torch.Tensor) -> torch.Tensor:
        """(B, 6, 32, 64) in [-1, 1] to (B, FEATURES): the mean and the maximum over the picture, mixed."""
        seen = self.body(pairs)
        mixed: torch.Tensor = self.neck(torch.cat([seen.mean(dim=(2, 3)), seen.amax(dim=(2, 3))], dim=1))
        return mixed

    def forward(self, pairs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The logits of each word."""
        features = functional.silu(self.features(pairs))
        return {name: head(features) for name, head in self.heads.items()}


def features_of(classifier: Classifier, frames: Frames) -> NDArray[np.float64]:
    """(T - APART, FEATURES): of each frame with the one APART behind it."""
    small = np.stack([cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) for frame in frames])
    found = []
    with torch.no_grad():
        for first in range(0, len(small) - APART, 64):
            last = min(first + 64, len(small) - APART)
            found.append(classifier.features(_pairs(small[first:last], small[first + APART : last + APART])))
    features: NDArray[np.float64] = torch.cat(found).double().numpy()
    return features


def kept_classifier(folder: Path, training: Training | None = None) -> Classifier:
    """The classifier of `folder`; trained and written there first unless it is there.

    The file's name tells what it was trained on, so that another world or training gets another one.
    """
    training = training or Training()
    drawn = draw_clip(training_scenes()[training.seed], training.seed, frames=1, height=HEIGHT, width=WIDTH).frames
    name = hashlib.sha256(repr((asdict(training), WORDS, FEATURES, APART)).encode() + drawn.tobytes()).hexdigest()[:12]
    file = folder / f"classifier-{name}.safetensors"
    classifier = Classifier()
    if not file.exists():
        classifier = train_classifier(training)
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".part")
        save_file(classifier.state_dict(), unfinished)
        unfinished.replace(file)
    classifier.load_state_dict(load_file(file))
    return classifier.eval()


def train_classifier(training: Training) -> Classifier:
    """The same training gives the same weights on one machine."""
    rng = np.random.default_rng(training.seed)
    pairs, answers = examples(training_scenes(), training.clips, rng)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        classifier = Classifier()
    optimizer = torch.optim.Adam(classifier.parameters(), lr=training.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps)
    for _ in range(training.steps):
        chosen = torch.from_numpy(rng.integers(len(pairs), size=training.batch))
        logits = classifier(_scaled(pairs[chosen]))
        loss = torch.stack([functional.cross_entropy(logits[name], answers[name][chosen]) for name in WORDS]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return classifier.eval()


def accuracy(classifier: Classifier, scenes: Sequence[Scene], clips: int, seed: int) -> dict[str, float]:
    """The share of clips whose words it names, by word."""
    pairs, answers = examples(scenes, clips, np.random.default_rng(seed))
    with torch.no_grad():
        logits = classifier(_scaled(pairs))
    return {name: float((logits[name].argmax(dim=1) == answers[name]).float().mean()) for name in WORDS}


def examples(
    scenes: Sequence[Scene], clips: int, rng: np.random.Generator
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Pairs of frames (clips, 6, H, W) uint8, from before any border, and the number of each word."""
    pairs: list[torch.Tensor] = []
    answers: dict[str, list[int]] = {name: [] for name in WORDS}
    for _ in range(clips):
        scene = scenes[int(rng.integers(len(scenes)))]
        seed, first = int(rng.integers(2**31)), int(rng.integers(16))
        ends = [
            draw_clip(scene, seed, frames=1, height=HEIGHT, width=WIDTH, first_frame=first + later).frames
            for later in (0, APART)
        ]
        pairs.append(torch.from_numpy(np.concatenate(ends, axis=-1)[0]).permute(2, 0, 1))
        for name, words in WORDS.items():
            answers[name].append(words.index(getattr(scene, name)))
    return torch.stack(pairs), {name: torch.tensor(numbers) for name, numbers in answers.items()}


def _pairs(before: Frames, after: Frames) -> torch.Tensor:
    both: Any = np.concatenate([before, after], axis=-1)
    return _scaled(torch.from_numpy(both).permute(0, 3, 1, 2))


def _scaled(pairs: torch.Tensor) -> torch.Tensor:
    return pairs.float() / 127.5 - 1.0
