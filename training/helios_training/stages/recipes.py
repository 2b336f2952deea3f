"""How the reference trains each stage at 14 B, and how the small model is trained.

At 14 B every stage trains a LoRA (rank = alpha) on all linear layers, with the memory patches in full. The small model
has no pretrained weights to stay close to, so it is trained in full and at far higher rates.
"""

from helios_training.stages.base import Levels
from helios_training.trainer import Recipe

BASE_RATES, MID_RATES = (5e-5, 3e-5), (1e-4, 3e-5)
"""First and later phase."""
LORA_RANKS = (128, 256)
BASE = Recipe(lr=BASE_RATES[0], weight_decay=1e-4, clip_norm=1.0)
MID = Recipe(lr=MID_RATES[0], weight_decay=1e-4, clip_norm=1.0)
ODE = Recipe(lr=2e-6, weight_decay=1e-4, clip_norm=1.0, ema_decay=0.99)
STUDENT = Recipe(lr=2e-6, betas=(0.0, 0.999), weight_decay=1e-3, clip_norm=10.0, every=5, ema_decay=0.99, ema_from=750)
FAKE_SCORE = Recipe(lr=4e-7, betas=(0.0, 0.999), weight_decay=1e-3, clip_norm=10.0)

SMALL_LEVELS = Levels(mean=1.1, deviation=1.4)
"""The small Base's levels. It has to learn what a caption says at the noisiest ones: below 0.95 a flat background shows
through the noise of a thousand latents, and N(0, 1) is above it once in 600 draws."""
SMALL_BASE = Recipe(lr=1e-3, betas=(0.9, 0.99), warmup_steps=200, final_share=0.05, ema_decay=0.999, ema_from=1500)
SMALL_MID = Recipe(lr=5e-4, betas=(0.9, 0.99), warmup_steps=200, final_share=0.05, ema_decay=0.999, ema_from=2000)
SMALL_ODE = Recipe(lr=2e-4, betas=(0.9, 0.99), warmup_steps=100, final_share=0.1, ema_decay=0.99)
SMALL_STUDENT = Recipe(
    lr=2e-5, betas=(0.0, 0.999), weight_decay=1e-3, clip_norm=10.0, every=5, ema_decay=0.99, ema_from=750
)
SMALL_FAKE_SCORE = Recipe(lr=4e-5, betas=(0.0, 0.999), weight_decay=1e-3, clip_norm=10.0)
