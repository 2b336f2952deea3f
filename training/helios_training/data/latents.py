"""Latent files: a video's sections as the VAE encodes them, with its caption.

`{id}_{frames}_{height}_{width}.safetensors` holds `vae_latent` (S, 16, 9, H/8, W/8), normalised, float16, and the
caption as the file's metadata. The reference's `.pt` files hold the same under the same name, beside prompt embeddings
and a picture; they are read without unpickling anything but tensors and text.
"""

import os
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from helios_engine.request import FRAMES_PER_CHUNK, LATENT_FRAMES_PER_CHUNK
from helios_training.errors import TrainingError

CHANNELS = 16
SUFFIXES = (".safetensors", ".pt")
_NAME = re.compile(r"(?P<id>.+)_(?P<frames>\d+)_(?P<height>\d+)_(?P<width>\d+)\.(safetensors|pt)")


@dataclass(frozen=True, kw_only=True)
class LatentClip:
    """latents: (S, 16, 9, H/8, W/8). embeds: (512, text_dim) where the file holds any."""

    caption: str
    latents: torch.Tensor
    embeds: torch.Tensor | None = None


def file_name(clip_id: str, sections: int, height: int, width: int) -> str:
    """height, width: in pixels."""
    return f"{clip_id}_{sections * FRAMES_PER_CHUNK}_{height}_{width}.safetensors"


def write_latents(folder: Path, clip_id: str, clip: LatentClip) -> Path:
    """Writes a clip's file, whole or not at all. Raises TrainingError when it cannot be written."""
    sections, _, _, height, width = clip.latents.shape
    file = folder / file_name(clip_id, sections, 8 * height, 8 * width)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    tensors = {"vae_latent": clip.latents.to(torch.float16).contiguous()}
    if clip.embeds is not None:
        tensors["prompt_embed"] = clip.embeds.contiguous()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, beside, metadata={"format": "pt", "prompt_raw": clip.caption})
        beside.replace(file)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        raise TrainingError(f"{file}: cannot be written: {error}") from None
    return file


def read_latents(file: Path) -> LatentClip:
    """Raises TrainingError naming the file and what is wrong with it."""
    name = _NAME.fullmatch(file.name)
    if name is None:
        raise TrainingError(
            f"{file}: its name is not allowed; allowed: {{id}}_{{frames}}_{{height}}_{{width}}.safetensors"
        )
    values = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickled(file)
    latents, caption = values.get("vae_latent"), values.get("prompt_raw")
    frames, height, width = (int(name[part]) for part in ("frames", "height", "width"))
    expected = (frames // FRAMES_PER_CHUNK, CHANNELS, LATENT_FRAMES_PER_CHUNK, height // 8, width // 8)
    if not isinstance(latents, torch.Tensor):
        raise TrainingError(f"{file}: vae_latent: is missing; expected a tensor {list(expected)}")
    if tuple(latents.shape) != expected or expected[0] == 0:
        raise TrainingError(
            f"{file}: vae_latent: has shape {list(latents.shape)}; expected {list(expected)} by its name"
        )
    if not torch.isfinite(latents).all():
        raise TrainingError(f"{file}: vae_latent: holds values that are not finite")
    if not isinstance(caption, str) or not caption.strip():
        raise TrainingError(f"{file}: prompt_raw: is missing or empty; allowed: the clip's caption")
    embeds = values.get("prompt_embed")
    return LatentClip(caption=caption, latents=latents, embeds=embeds if isinstance(embeds, torch.Tensor) else None)


def _read_safetensors(file: Path) -> dict[str, Any]:
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
            return tensors | dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{file}: is truncated or no safetensors file: {error}") from None


def _read_pickled(file: Path) -> dict[str, Any]:
    try:
        values = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())
        named = re.search(r"GLOBAL ([\w.]+)", reason)
        what = named[1] if named else "something else"
        raise TrainingError(
            f"{file}: holds {what}, which is never unpickled; allowed: tensors and text (write it without its picture)"
        ) from None
    except (OSError, RuntimeError, EOFError) as error:
        raise TrainingError(f"{file}: is damaged or no file of torch: {error}") from None
    if not isinstance(values, dict):
        raise TrainingError(f"{file}: holds a {type(values).__name__}; allowed: a dict with vae_latent and prompt_raw")
    return values


class LatentFolder:
    """The clips of a folder, sorted by name, kept in memory once read."""

    def __init__(self, folder: Path, *, limit: int | None = None) -> None:
        """limit: use the first so many only. Raises TrainingError for a folder without any."""
        files = sorted(file for file in folder.glob("*") if file.suffix in SUFFIXES and not file.name.startswith("."))
        if not files:
            raise TrainingError(f"{folder}: holds no latents; allowed: a folder that `helios encode` has filled")
        self.files = files[:limit]
        self._read: dict[int, LatentClip] = {}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> LatentClip:
        if index not in self._read:
            self._read[index] = read_latents(self.files[index])
        return self._read[index]
