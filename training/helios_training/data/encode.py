"""Encodes clips to latents with the engine's VAE encoder; what is there already is not encoded again."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from helios_engine.checkpoint import load_weights
from helios_engine.checkpoint.open import read_config
from helios_engine.configs import VAEConfig
from helios_engine.errors import CheckpointError
from helios_engine.loading.shapes import shapes
from helios_engine.loading.vae import DECODER_PREFIXES
from helios_engine.request import FRAMES_PER_CHUNK
from helios_engine.vae.encoder import WanEncoder
from helios_training.data.latents import LatentClip, file_name, write_latents
from helios_training.data.metadata import read_metadata
from helios_training.errors import TrainingError
from helios_training.world import Scene, draw_clip, training_scenes


def encode_sections(encoder: WanEncoder, frames: NDArray[np.uint8]) -> torch.Tensor:
    """The means of whole sections, each encoded on its own, (S, 16, 9, H/8, W/8). frames: (T, H, W, 3).

    Raises TrainingError for a clip shorter than a section.
    """
    sections = len(frames) // FRAMES_PER_CHUNK
    if sections == 0:
        raise TrainingError(f"clip: {len(frames)} frames are not allowed; allowed: at least {FRAMES_PER_CHUNK}")
    parts = np.split(frames[: sections * FRAMES_PER_CHUNK], sections)
    return torch.cat([_mean(encoder, part) for part in parts])


@torch.inference_mode()
def _mean(encoder: WanEncoder, frames: NDArray[np.uint8]) -> torch.Tensor:
    weight = encoder.quant_conv.weight
    pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].to(weight) / 127.5 - 1.0
    mean, _ = encoder(pixels)
    latents: torch.Tensor = mean.float().cpu()
    return latents


def load_encoder(root: Path) -> WanEncoder:
    """The encoder of a folder with a vae/, in float32. Raises TrainingError naming what is wrong with it."""
    try:
        config = read_config(root / "vae" / "config.json", "AutoencoderKLWan", VAEConfig)
        with torch.device("meta"):
            model = WanEncoder(config)
        weights = load_weights(
            root / "vae",
            shapes(model),
            device="cpu",
            dtype_of=lambda _: torch.float32,
            ignored_prefixes=DECODER_PREFIXES,
        )
    except CheckpointError as error:
        raise TrainingError(str(error)) from None
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(False)


def encode_metadata(encoder: WanEncoder, metadata: Path, folder: Path) -> Iterator[Path]:
    """Writes the clips that a metadata file lists; yields each file that was not there."""
    for entry in read_metadata(metadata):
        sections = (entry.last - entry.first) // FRAMES_PER_CHUNK
        name = file_name(entry.clip_id, sections, entry.bottom - entry.top, entry.right - entry.left)
        if not (folder / name).exists():
            latents = encode_sections(encoder, entry.frames())
            yield write_latents(folder, entry.clip_id, LatentClip(caption=entry.caption, latents=latents))


def world_clip(index: int, seed: int) -> tuple[Scene, int]:
    """Scene and seed of the index-th training clip of the world."""
    rng = np.random.default_rng((seed, index))
    scenes = training_scenes()
    return scenes[int(rng.integers(len(scenes)))], int(rng.integers(2**31))


def encode_world(
    encoder: WanEncoder, folder: Path, indices: Sequence[int], *, sections: int, height: int, width: int, seed: int = 0
) -> Iterator[Path]:
    """Writes the world's clips `indices`; yields each file that was not there."""
    for index in indices:
        clip_id = f"world-{index:06}"
        if (folder / file_name(clip_id, sections, height, width)).exists():
            continue
        scene, clip_seed = world_clip(index, seed)
        clip = draw_clip(scene, clip_seed, frames=sections * FRAMES_PER_CHUNK, height=height, width=width)
        latents = encode_sections(encoder, clip.frames)
        yield write_latents(folder, clip_id, LatentClip(caption=scene.caption, latents=latents))


def statistics(
    encoder: WanEncoder, *, clips: int, height: int, width: int, seed: int = 1
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over clips' first sections, by an encoder that normalises none."""
    latents = []
    for index in range(clips):
        scene, clip_seed = world_clip(index, seed)
        frames = draw_clip(scene, clip_seed, frames=FRAMES_PER_CHUNK, height=height, width=width).frames
        latents.append(encode_sections(encoder, frames))
    stacked = torch.cat(latents).double().transpose(0, 1).flatten(1)  # C (N T h w)
    return tuple(stacked.mean(dim=1).tolist()), tuple(stacked.std(dim=1).tolist())
