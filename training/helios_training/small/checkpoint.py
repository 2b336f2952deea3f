"""Writes and reads the small model's parts as a checkpoint in the published layout, in 16 bits where that is enough."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from helios_engine.configs import SchedulerConfig, SolverConfig, TransformerConfig, VAEConfig
from helios_engine.options import VariantName
from helios_training.small.sizes import small_distilled, small_solver
from helios_training.small.text import text_config
from helios_training.small.vocabulary import save_tokenizer

DIFFUSERS_VERSION = "0.42.1"


def write_index(root: Path, variant: VariantName) -> None:
    """model_index.json and the scheduler of this variant."""
    flags = {} if variant == "base" else {"is_cfg_zero_star": variant == "mid", "is_distilled": variant == "distilled"}
    scheduler: SchedulerConfig
    if variant == "distilled":
        scheduler, scheduler_class = small_distilled(), "HeliosDMDScheduler"
    else:
        scheduler, scheduler_class = small_solver(1 if variant == "base" else 3), "HeliosScheduler"
    index = {
        "_class_name": "HeliosPipeline" if variant == "base" else "HeliosPyramidPipeline",
        "_diffusers_version": DIFFUSERS_VERSION,
        **flags,
        "scheduler": ["diffusers", scheduler_class],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "HeliosTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    write_json(root / "model_index.json", index)
    settings = {"_class_name": scheduler_class, **_published(scheduler)}
    write_json(root / "scheduler" / "scheduler_config.json", settings)


def _published(scheduler: SchedulerConfig) -> dict[str, Any]:
    values = asdict(scheduler)
    if isinstance(scheduler, SolverConfig):
        values["disable_corrector"] = list(values["disable_corrector"])
    return values


def write_transformer(root: Path, config: TransformerConfig, weights: Mapping[str, torch.Tensor]) -> None:
    """transformer/."""
    write_json(root / "transformer" / "config.json", {"_class_name": "HeliosTransformer3DModel", **asdict(config)})
    write_weights(root / "transformer" / "diffusion_pytorch_model.safetensors", weights)


def write_vae(root: Path, config: VAEConfig, weights: Mapping[str, torch.Tensor]) -> None:
    """vae/."""
    write_json(root / "vae" / "config.json", {"_class_name": "AutoencoderKLWan", **asdict(config)})
    write_weights(root / "vae" / "diffusion_pytorch_model.safetensors", weights)


def write_text(root: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """text_encoder/ and tokenizer/."""
    text_config().save_pretrained(root / "text_encoder")
    write_weights(root / "text_encoder" / "model.safetensors", weights)
    save_tokenizer(root / "tokenizer")


def write_weights(file: Path, weights: Mapping[str, torch.Tensor], dtype: torch.dtype = torch.float16) -> None:
    """Replaces the file, or leaves it as it was."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    stored = {name: weight.detach().to("cpu", dtype).contiguous() for name, weight in weights.items()}
    save_file(stored, beside, metadata={"format": "pt"})
    beside.replace(file)


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Replaces the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
