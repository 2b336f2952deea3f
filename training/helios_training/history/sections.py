"""A training sample out of a video's latents: the section to make, the 19 latents before it, and the anchor.

Legend: S sections, B batch, C channels, T latent frames, h/w latent height and width. All sections stand in a row with
19 zero latents in front; the history is ordered from the oldest (16 long, 2 mid, 1 short).
"""

from typing import NamedTuple

import torch

from helios_training.history.modes import HISTORY_LATENTS


class Section(NamedTuple):
    """target: (C, 9, h, w); history: (C, 19, h, w); anchor: (C, 1, h, w), the video's first latent, zero for itself."""

    target: torch.Tensor
    history: torch.Tensor
    anchor: torch.Tensor


def take_section(latents_SCThw: torch.Tensor, index: int) -> Section:
    """Section `index` of a video whose sections were encoded one by one, (S, C, 9, h, w)."""
    sections, channels, frames, height, width = latents_SCThw.shape
    if not 0 <= index < sections:
        raise ValueError(f"index: {index} is not allowed; allowed: 0 to {sections - 1}, a section of the video")
    row = latents_SCThw.transpose(0, 1).flatten(1, 2)  # C (S T) h w
    row = torch.cat([row.new_zeros(channels, HISTORY_LATENTS, height, width), row], dim=1)
    first = HISTORY_LATENTS + frames * index
    anchor = row[:, HISTORY_LATENTS : HISTORY_LATENTS + 1]
    return Section(
        target=row[:, first : first + frames],
        history=row[:, first - HISTORY_LATENTS : first],
        anchor=anchor if index > 0 else torch.zeros_like(anchor),
    )
