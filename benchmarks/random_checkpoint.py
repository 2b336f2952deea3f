"""Writes a transformer of random weights in the published layout, of any size, holding one shard at a time."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from math import prod
from pathlib import Path

import torch
from safetensors.torch import save_file

from helios_engine.configs import TransformerConfig
from helios_engine.loading.shapes import transformer_shapes


def config_of(num_bytes: float, dtype: torch.dtype) -> TransformerConfig:
    """A narrow Helios with as many layers as fill `num_bytes`."""

    def config(layers: int) -> TransformerConfig:
        return TransformerConfig(
            num_attention_heads=12, ffn_dim=8192, text_dim=1024, num_layers=layers, is_amplify_history=True
        )

    one, two = (sum(map(prod, transformer_shapes(config(layers)).values())) for layers in (1, 2))
    return config(max(1, round((num_bytes / dtype.itemsize - one) / (two - one)) + 1))


def write_transformer(folder: Path, config: TransformerConfig, dtype: torch.dtype, shard_bytes: float) -> None:
    """Writes config.json, the index and shards of at most `shard_bytes` (or of one tensor, where that is larger).

    A GPU draws the weights where there is one: a CPU takes minutes for 14 B.
    """
    folder.mkdir(parents=True)
    shapes = transformer_shapes(config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator(device).manual_seed(0)
    shards = list(_shards(shapes, dtype, shard_bytes))
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"diffusion_pytorch_model-{number:05}-of-{len(shards):05}.safetensors"
        weights = {
            name: torch.empty(shapes[name], dtype=dtype, device=device).uniform_(-0.1, 0.1, generator=generator).cpu()
            for name in names
        }
        save_file(weights, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    (folder / "config.json").write_text(json.dumps({"_class_name": "HeliosTransformer3DModel", **asdict(config)}))
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _shards(shapes: Mapping[str, torch.Size], dtype: torch.dtype, shard_bytes: float) -> Iterator[list[str]]:
    """Names in the model's order, as published checkpoints are cut."""
    names: list[str] = []
    size = 0
    for name, shape in shapes.items():
        tensor = prod(shape) * dtype.itemsize
        if names and size + tensor > shard_bytes:
            yield names
            names, size = [], 0
        names.append(name)
        size += tensor
    yield names
