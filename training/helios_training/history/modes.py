"""Which part of the past a batch is given: one draw for the whole batch. Source: TRAINING.md's facts of the reference.

40 % text to video (nothing), then shares of image to video (anchor and newest latent) and video to video (the oldest
latents missing, as early in a video); otherwise all of it.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from helios_engine.request import LATENT_FRAMES_PER_CHUNK
from helios_training.errors import TrainingError

Mode = Literal["text", "image", "video", "all"]
TEXT_SHARE = 0.4
HISTORY_LATENTS = 19
MISSING_SECTIONS = 3
"""Video to video: the oldest 1 + 9 n latents are missing, n uniform below this."""


@dataclass(frozen=True, kw_only=True)
class ModeShares:
    """Shares of batches. The reference's authors correct their released image share of 0 to 0.1; stage 3: video 0.5."""

    image: float = 0.1
    video: float = 0.4

    def __post_init__(self) -> None:
        if min(self.image, self.video) < 0 or TEXT_SHARE + self.image + self.video > 1 + 1e-9:
            raise TrainingError(
                f"image, video: {self.image!r} and {self.video!r} are not allowed; allowed: shares from 0 that with "
                f"{TEXT_SHARE} of text add up to at most 1"
            )


def draw_mode(rng: np.random.Generator, shares: ModeShares) -> Mode:
    """One draw."""
    u = rng.random()
    for mode, share in (("text", TEXT_SHARE), ("image", shares.image), ("video", shares.video)):
        if u < share:
            return mode  # type: ignore[return-value]
        u -= share
    return "all"


def kept_latents(mode: Mode, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """Which of the 19 history latents (oldest first) are kept, as booleans, and whether the anchor is."""
    kept = np.ones(HISTORY_LATENTS, dtype=bool)
    if mode == "text":
        return ~kept, False
    if mode == "image":
        kept[:-1] = False
    elif mode == "video":
        kept[: 1 + LATENT_FRAMES_PER_CHUNK * int(rng.integers(MISSING_SECTIONS))] = False
    return kept, True
