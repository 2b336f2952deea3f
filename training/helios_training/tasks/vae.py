"""Trains the small VAE: single frames, then clips of a chunk in small windows, then the decoder alone.

Single frames are cheap and bring colours; a clip of 33 frames is as far as the VAE reaches in time. Once latents have
been encoded for the DiT, the encoder must keep its weights: the decoder alone may still get better.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from helios_engine.request import FRAMES_PER_CHUNK
from helios_training.export import vae_weights
from helios_training.pictures import save_strip
from helios_training.small.sizes import HEIGHT, WIDTH, small_vae
from helios_training.trainer import Part, Recipe
from helios_training.vae.autoencoder import Autoencoder, inflatable_
from helios_training.vae.batches import PixelBatch, PixelDraw, draw_batch
from helios_training.vae.objective import VAEObjective

Phase = Literal["frames", "clips", "decoder"]
DRAWS: Mapping[Phase, PixelDraw] = {
    "frames": PixelDraw(samples=4, frames=1),
    "clips": PixelDraw(samples=1, frames=FRAMES_PER_CHUNK, crop=48),
    "decoder": PixelDraw(samples=1, frames=FRAMES_PER_CHUNK, crop=64),
}
RATES: Mapping[Phase, float] = {"frames": 1e-3, "clips": 2e-4, "decoder": 2e-4}


class VAETask:
    """One phase of the VAE's training."""

    def __init__(self, phase: Phase, *, start: Path | None = None, device: str = "cpu", seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.autoencoder = Autoencoder(small_vae())
        inflatable_(self.autoencoder)
        if start is not None:
            self.autoencoder.load_state_dict(vae_weights(start))
        self.autoencoder.to(device)
        self.phase, self.seed, self.device = phase, seed, device
        decoder_only = phase == "decoder"
        if decoder_only:
            self.autoencoder.halves["encoder"].requires_grad_(False)
        objective = VAEObjective(self.autoencoder, decoder_only=decoder_only)
        recipe = Recipe(lr=RATES[phase], betas=(0.9, 0.99), warmup_steps=50, final_share=0.1)
        self.parts = [Part("vae", self.autoencoder, objective, recipe)]
        self.facts: Mapping[str, Any] = {"stage": "vae", "phase": phase, "seed": seed}

    def batch(self, part: str, step: int) -> PixelBatch:
        """Clips of any scene at any time of its first minute."""
        return draw_batch(self.seed, step, DRAWS[self.phase], height=HEIGHT, width=WIDTH)

    @torch.no_grad()
    def sample(self, folder: Path, step: int) -> None:
        """A strip of a clip's frames over what the VAE makes of them."""
        draw = PixelDraw(samples=1, frames=FRAMES_PER_CHUNK)
        pixels = draw_batch(self.seed + 1, step, draw, height=HEIGHT, width=WIDTH).pixels.to(self.device)
        mean, _ = self.autoencoder.encode(pixels)
        save_strip(folder / f"vae-{step:06}.png", [pixels[0].cpu(), self.autoencoder.decode(mean)[0].cpu()])
