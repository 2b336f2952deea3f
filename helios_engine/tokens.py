"""How many tokens the DiT sees, by the size of the video (pixels)."""

from helios_engine.configs import HISTORY_FRAMES
from helios_engine.request import LATENT_FRAMES_PER_CHUNK

PATCH = 16
"""Pixels of a token's side: 8 of the VAE, times 2 of the patch."""


def noisy_tokens(height: int, width: int, scale: int = 1) -> int:
    """How many noisy tokens a chunk has. height, width: pixels.

    scale: how many times smaller than the video its latents are (pyramid stages: 4, 2, 1).
    """
    return LATENT_FRAMES_PER_CHUNK * (height // PATCH // scale) * (width // PATCH // scale)


def history_tokens(height: int, width: int) -> int:
    """How many history tokens a chunk has, the anchor's included. height, width: pixels.

    Patches of long, mid and short memory are 4, 2 and 1 times as large in each direction.
    """
    rows, columns = height // PATCH, width // PATCH
    long, mid, short = HISTORY_FRAMES
    return sum(
        -(-frames // pool) * -(-rows // pool) * -(-columns // pool)
        for frames, pool in ((long, 4), (mid, 2), (short + 1, 1))
    )
