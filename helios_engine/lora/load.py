"""Strict loading of an adapter: every tensor is understood and fits a layer, or the file is refused.

Loads what diffusers' `load_lora_weights` and `load_lora_adapter`, and PEFT's `from_pretrained`, load. They skip or
misread what they do not know; this does not.
"""

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path

import torch
from torch import nn

from helios_engine.errors import CheckpointError
from helios_engine.lora.adapter import Adapter, Layer, LowRank, adaptable_layers
from helios_engine.lora.file import AdapterFile, read_file
from helios_engine.lora.names import DORA_PARTS, layer_names, parse_key
from helios_engine.lora.settings import Settings

DIFFERENCE_ENDING = ".diff_b"
"""Keys of biases that alpha does not scale; diffusers folds alpha into the matrices beside them."""

Named = tuple[str, torch.Tensor]
"""A tensor with its key in the file."""


def load_adapter(path: str | PathLike[str], transformer: nn.Module) -> Adapter:
    """Reads an adapter for the transformer, which may be on the meta device, and is not changed.

    path: a .safetensors file, or a folder with `pytorch_lora_weights.safetensors` (diffusers) or
    `adapter_model.safetensors` (PEFT). The scale of a layer's update is alpha / rank, with alpha from, in this order:
    `adapter_config.json` beside a file of PEFT's name (required); the header's `lora_adapter_metadata`; the layer's
    `.alpha` tensor; and without any, alpha is the rank. Raises CheckpointError naming each key that is wrong.
    """
    file = read_file(Path(path))
    layers = adaptable_layers(transformer)
    problems: list[str] = []
    updates: dict[str, LowRank] = {}
    for name, parts in _by_layer(file, layers, problems).items():
        update = _update(file, name, layers[name], parts, problems)
        if update is not None:
            updates[name] = update
    if problems:
        raise CheckpointError("\n".join(problems))
    if not updates:
        raise CheckpointError(f"{file.path}: changes no layer")
    return Adapter(source=file.path, digest=file.digest, layers=updates)


def _by_layer(file: AdapterFile, layers: Mapping[str, Layer], problems: list[str]) -> dict[str, dict[str, Named]]:
    """The file's tensors by layer and part of its update; what cannot be used is added to the problems."""
    names = layer_names(layers, file.prefix)
    found: dict[str, dict[str, Named]] = {}
    for key, tensor in file.tensors.items():
        meaning = parse_key(key, file.prefix, names)
        if not tensor.isfinite().all():
            problems.append(f"{file.path}: tensor {key}: holds NaN or infinity")
        if any(part in key for part in DORA_PARTS):
            problems.append(f"{file.path}: tensor {key}: belongs to a DoRA adapter; these are not supported")
        elif meaning is None:
            problems.append(f"{file.path}: tensor {key}: is unexpected; allowed: LoRA tensors, prefix {file.prefix!r}")
        elif meaning.part in ("difference", "bias") and not tensor.any():
            continue  # changes nothing: converters write zeros for layers that were not trained
        elif meaning.part == "difference":
            problems.append(f"{file.path}: tensor {key}: is a full weight difference; allowed: low-rank updates")
        elif meaning.layer is None:
            problems.append(f"{file.path}: tensor {key}: the model has no linear layer of this name")
        else:
            parts = found.setdefault(meaning.layer, {})
            if meaning.part in parts:
                problems.append(f"{file.path}: tensor {key}: is given already as tensor {parts[meaning.part][0]}")
            parts[meaning.part] = (key, tensor)
    return found


def _update(
    file: AdapterFile, name: str, layer: Layer, parts: Mapping[str, Named], problems: list[str]
) -> LowRank | None:
    """The layer's update, or None with what is wrong added to the problems."""
    before = len(problems)
    missing = [part for part in ("A", "B") if {"A": "down", "B": "up"}[part] not in parts]
    if missing:
        keys = ", ".join(key for key, _ in parts.values())
        problems.append(f"{file.path}: layer {name}: matrix {' and '.join(missing)} is missing beside {keys}")
        return None
    (down_key, down), (up_key, up) = parts["down"], parts["up"]
    rank = down.shape[0] if down.dim() else 0
    if rank == 0:
        problems.append(f"{file.path}: tensor {down_key}: has shape {list(down.shape)}, expected a rank above 0")
        return None
    out, *inner = layer.weight.shape
    expected = {down_key: [rank, *inner], up_key: [out, rank, *(1 for _ in inner[1:])]}
    bias = parts["bias"][1] if "bias" in parts else None
    if bias is not None:
        expected[parts["bias"][0]] = [out]
    for key, tensor in parts.values():
        if key in expected and list(tensor.shape) != expected[key]:
            problems.append(f"{file.path}: tensor {key}: has shape {list(tensor.shape)}, expected {expected[key]}")
    if bias is not None and layer.bias is None:
        problems.append(f"{file.path}: tensor {parts['bias'][0]}: layer {name} has no bias")

    scaling = 1.0
    if file.settings is not None:
        problems += _disagreements(file.path, name, rank, parts, file.settings)
        scaling = file.settings.scaling_of(name)
    elif "alpha" in parts:
        key, alpha = parts["alpha"]
        if alpha.numel() != 1:
            problems.append(f"{file.path}: tensor {key}: has shape {list(alpha.shape)}, expected one number")
        else:
            scaling = float(alpha) / rank
    if len(problems) > before:
        return None
    if bias is not None and not parts["bias"][0].endswith(DIFFERENCE_ENDING):
        bias = bias.float() * scaling
    return LowRank(down=down.flatten(1), up=up.flatten(1), bias=bias, scaling=scaling)


def _disagreements(file: Path, name: str, rank: int, parts: Mapping[str, Named], settings: Settings) -> Iterator[str]:
    """Where a layer's tensors and the settings disagree."""
    if rank != settings.rank_of(name):
        yield f"{settings.source}: rank {settings.rank_of(name)} of layer {name}: its tensors have {rank}"
    if "bias" in parts and not settings.lora_bias:
        yield f"{file}: tensor {parts['bias'][0]}: {settings.source} has lora_bias false"
    if "alpha" in parts:
        yield f"{file}: tensor {parts['alpha'][0]}: {settings.source} gives alpha already"
