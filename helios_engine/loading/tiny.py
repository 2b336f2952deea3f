"""Writes tiny random checkpoints in the published layout: what tests and the demo run on."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file as save_tensors

from helios_engine.configs import TransformerConfig, VAEConfig
from helios_engine.loading.shapes import transformer_shapes, vae_shapes
from helios_engine.options import VariantName

WORDS = "a an and at in of on over the to with cat dog lake forest city night rain sun snow red blue slow camera"
LATENTS_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
LATENTS_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip
"""The published statistics of Wan's latents, per channel."""


@dataclass(frozen=True, kw_only=True)
class TinyShape:
    """Sizes of a tiny model."""

    layers: int = 2
    heads: int = 2
    head_dim: int = 24
    rope_dim: tuple[int, int, int] = (8, 8, 8)
    ffn_dim: int = 96
    text_dim: int = 32
    vae_dim: int = 8
    is_amplify_history: bool = True
    history_scale_mode: str = "per_head"


def write_tiny(
    path: str | PathLike[str], *, variant: VariantName = "distilled", seed: int = 0, shape: TinyShape | None = None
) -> None:
    """Writes a checkpoint of a few hundred kB; the same arguments give the same bytes."""
    root, shape = Path(path), shape or TinyShape()
    generator = torch.Generator().manual_seed(seed)
    _write_json(root / "model_index.json", _model_index(variant))
    _write_json(root / "scheduler" / "scheduler_config.json", _scheduler(variant))
    _write_transformer(root / "transformer", shape, generator)
    _write_vae(root / "vae", shape, generator)
    _write_text_encoder(root, shape, seed)


def random_weights(tensors: Mapping[str, torch.Size], generator: torch.Generator, gain: float = 1.0) -> dict[str, Any]:
    """Random tensors of sane scale: matrices keep the variance, nothing stays at its identity initialisation."""
    weights = {}
    for name, shape in tensors.items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("gamma") or len(shape) < 2:
            scale = name.endswith(("gamma", "norm_q.weight", "norm_k.weight", "norm2.weight"))
            weights[name] = noise * 0.2 + (1.0 if scale else 0.0)
        else:
            weights[name] = noise * gain / max(noise[0].numel(), 1) ** 0.5
    return weights


def _model_index(variant: VariantName) -> dict[str, Any]:
    return {
        "_class_name": "HeliosPipeline" if variant == "base" else "HeliosPyramidPipeline",
        "_diffusers_version": "0.42.1",
        **({} if variant == "base" else {"is_cfg_zero_star": variant == "mid", "is_distilled": variant == "distilled"}),
        "scheduler": ["diffusers", "HeliosDMDScheduler" if variant == "distilled" else "HeliosScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "HeliosTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }


def _scheduler(variant: VariantName) -> dict[str, Any]:
    config: dict[str, Any] = {
        "_class_name": "HeliosDMDScheduler" if variant == "distilled" else "HeliosScheduler",
        "num_train_timesteps": 1000,
        "shift": 1.0,
        "stages": 1 if variant == "base" else 3,
        "stage_range": [0, 1] if variant == "base" else [0, 1 / 3, 2 / 3, 1],
        "gamma": 1 / 3,
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "use_dynamic_shifting": True,
    }
    if variant == "distilled":
        config["time_shift_type"] = "linear"
    return config


def _write_transformer(folder: Path, shape: TinyShape, generator: torch.Generator) -> None:
    config = TransformerConfig(
        num_attention_heads=shape.heads,
        attention_head_dim=shape.head_dim,
        text_dim=shape.text_dim,
        freq_dim=32,
        ffn_dim=shape.ffn_dim,
        num_layers=shape.layers,
        rope_dim=shape.rope_dim,
        is_amplify_history=shape.is_amplify_history,
        history_scale_mode=shape.history_scale_mode,
    )
    _write_json(folder / "config.json", {"_class_name": "HeliosTransformer3DModel", **asdict(config)})
    _write_sharded(folder, random_weights(transformer_shapes(config), generator), shards=2)


def _write_vae(folder: Path, shape: TinyShape, generator: torch.Generator) -> None:
    config = VAEConfig(base_dim=shape.vae_dim, num_res_blocks=1, latents_mean=LATENTS_MEAN, latents_std=LATENTS_STD)
    _write_json(folder / "config.json", {"_class_name": "AutoencoderKLWan", **asdict(config)})
    _save(random_weights(vae_shapes(config), generator, gain=1.5), folder / "diffusion_pytorch_model.safetensors")


def _write_text_encoder(root: Path, shape: TinyShape, seed: int) -> None:
    from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel  # slow to import, and many want the rest only

    letters = [chr(code) for code in range(33, 127)]
    words = [f"▁{word}" for word in WORDS.split()]
    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    vocab = [*specials, *((word, -2.0) for word in words), *((letter, -4.0) for letter in letters)]
    T5Tokenizer(vocab=vocab, extra_ids=0).save_pretrained(root / "tokenizer")
    config = UMT5Config(
        vocab_size=len(vocab), d_model=shape.text_dim, d_kv=8, d_ff=48, num_layers=2, num_heads=4, dropout_rate=0.0
    )
    config.architectures = ["UMT5EncoderModel"]
    config.save_pretrained(root / "text_encoder")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = {name: parameter.detach() for name, parameter in UMT5EncoderModel(config).named_parameters()}
    _save(weights, root / "text_encoder" / "model.safetensors")


def _save(weights: dict[str, torch.Tensor], file: Path) -> None:
    save_tensors(weights, file, metadata={"format": "pt"})


def _write_sharded(folder: Path, weights: dict[str, torch.Tensor], shards: int) -> None:
    names = sorted(weights)
    files = {
        name: f"diffusion_pytorch_model-{n % shards + 1:05}-of-{shards:05}.safetensors" for n, name in enumerate(names)
    }
    for file in set(files.values()):
        _save({name: weights[name] for name in names if files[name] == file}, folder / file)
    size = sum(weight.numel() * weight.element_size() for weight in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": files}
    _write_json(folder / "diffusion_pytorch_model.safetensors.index.json", index)


def _write_json(file: Path, values: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
