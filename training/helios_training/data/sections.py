"""Batches of sections with their past, out of latents: what every stage but the VAE's is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from helios_training.data.latents import LatentClip
from helios_training.history.corrupt import Past, corrupt
from helios_training.history.modes import Mode, ModeShares, draw_mode, kept_latents
from helios_training.history.sections import take_section

NO_CAPTION_SHARE = 0.1
"""The share of samples whose caption is dropped. Guidance needs a model that can do without one."""


class Clips(Protocol):
    """A sequence of clips."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> LatentClip: ...


@dataclass(frozen=True, kw_only=True)
class SectionBatch:
    """target: (B, 16, 9, h, w); history: (B, 16, 19, h, w); anchor: (B, 16, 1, h, w), both as the model is given them.

    noise: N(0, 1) like the target. u: (B, draws) uniform numbers from 0 to 1 for what a stage draws for each sample.
    """

    target: torch.Tensor
    history: torch.Tensor
    anchor: torch.Tensor
    captions: list[str]
    noise: torch.Tensor
    u: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class SectionDraw:
    """How batches are drawn. captions_tell_start: captions speak of how the video begins, as those of the small world
    do, so that without a past the section to make is the video's first; the reference takes any."""

    samples: int
    shares: ModeShares = field(default_factory=ModeShares)
    captions_tell_start: bool = True
    saturation: bool = False
    no_caption_share: float = NO_CAPTION_SHARE
    draws: int = 2


def draw_sections(clips: Clips, draw: SectionDraw, seed: Sequence[int]) -> SectionBatch:
    """A batch, the same for the same clips and seed."""
    rng = np.random.default_rng(list(seed))
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    mode = draw_mode(rng, draw.shares)
    targets, histories, anchors, captions = [], [], [], []
    for _ in range(draw.samples):
        clip = clips[int(rng.integers(len(clips)))]
        section = take_section(clip.latents.float(), _section_index(mode, len(clip.latents), draw, rng))
        kept, anchored = kept_latents(mode, rng)
        targets.append(section.target)
        histories.append(section.history * torch.from_numpy(kept).view(1, -1, 1, 1))
        anchors.append(section.anchor * anchored)
        captions.append("" if rng.random() < draw.no_caption_share else clip.caption)
    past = Past(history=torch.stack(histories), anchor=torch.stack(anchors))
    past = corrupt(past, generator, saturation=draw.saturation)
    target = torch.stack(targets)
    return SectionBatch(
        target=target,
        history=past.history,
        anchor=past.anchor,
        captions=captions,
        noise=torch.randn(target.shape, generator=generator),
        u=torch.rand(draw.samples, draw.draws, generator=generator),
    )


def _section_index(mode: Mode, sections: int, draw: SectionDraw, rng: np.random.Generator) -> int:
    if draw.captions_tell_start:
        return 0 if mode == "text" or sections == 1 else int(rng.integers(1, sections))
    return int(rng.integers(sections))
