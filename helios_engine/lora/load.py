"""Strict loading of an adapter: every tensor is understood and fits a layer, or the file is refused.

Reads what diffusers' `load_lora_weights` and `load_lora_adapter`, and PEFT's `from_pretrained`, read. They skip keys
that they do not know; this does not. Pickle is never loaded.
"""

import hashlib
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from helios_engine.checkpoint.open import read_json
from helios_engine.checkpoint.weights import FLOATS
from helios_engine.errors import CheckpointError, shorten
from helios_engine.lora.adapter import Adapter, Layer, LowRank, adaptable_layers
from helios_engine.lora.names import DORA_PARTS, file_prefix, layer_names, parse_key
from helios_engine.lora.settings import Settings, parse_settings

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
PEFT_FILE = "adapter_model.safetensors"
PEFT_CONFIG = "adapter_config.json"
DIFFERENCE_ENDING = ".diff_b"
"""Keys of biases that alpha does not scale; diffusers folds alpha into the matrices beside them."""
METADATA_KEY = "lora_adapter_metadata"
INTEGERS = frozenset({"I64", "I32", "I16", "I8", "U8"})

Named = tuple[str, torch.Tensor]
"""A tensor with its key in the file."""


def load_adapter(path: str | PathLike[str], transformer: nn.Module) -> Adapter:
    """Reads an adapter for the transformer, which may be on the meta device, and is not changed.

    path: a .safetensors file, or a folder with `pytorch_lora_weights.safetensors` (diffusers) or
    `adapter_model.safetensors` (PEFT). The scale of a layer's update is alpha / rank, with alpha from, in this order:
    `adapter_config.json` beside a file of PEFT's name (required); the header's `lora_adapter_metadata`; the layer's
    `.alpha` tensor; and without any, alpha is the rank. Raises CheckpointError naming each key that is wrong.
    """
    file = _adapter_file(Path(path))
    tensors, metadata = _read(file)
    prefix = file_prefix(tensors)
    config = file.with_name(PEFT_CONFIG) if file.name == PEFT_FILE else None
    settings = parse_settings(read_json(config), str(config)) if config else _header_settings(file, metadata, prefix)
    layers = adaptable_layers(transformer)
    problems: list[str] = []
    updates: dict[str, LowRank] = {}
    for name, parts in _by_layer(file, tensors, prefix, layers, problems).items():
        update = _update(file, name, layers[name], parts, settings, problems)
        if update is not None:
            updates[name] = update
    if problems:
        raise CheckpointError("\n".join(problems))
    if not updates:
        raise CheckpointError(f"{file}: changes no layer")
    return Adapter(source=file, digest=_digest(file, config), layers=updates)


def _adapter_file(path: Path) -> Path:
    if not path.is_dir():
        if path.suffix != ".safetensors":
            raise CheckpointError(f"{path}: is not allowed; allowed: a .safetensors file, or a folder with one")
        return path
    found = [path / name for name in (DIFFUSERS_FILE, PEFT_FILE) if (path / name).exists()]
    if len(found) != 1:
        what = "holds both" if found else "holds neither"
        raise CheckpointError(f"{path}: {what} {DIFFUSERS_FILE} and {PEFT_FILE}; allowed: one of them")
    return found[0]


def _read(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            keys = sorted(opened.keys())
            kinds = {key: opened.get_slice(key).get_dtype() for key in keys}
            problems = []
            for key, kind in kinds.items():
                allowed = FLOATS | INTEGERS if key.endswith(".alpha") else FLOATS
                if kind not in allowed:
                    problems.append(f"{file}: tensor {key}: has dtype {kind}, expected one of {sorted(allowed)}")
            if problems:
                raise CheckpointError("\n".join(problems))
            return {key: opened.get_tensor(key) for key in keys}, dict(opened.metadata() or {})
    except FileNotFoundError:
        raise CheckpointError(f"{file}: is missing") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: is truncated or no safetensors file: {error}") from None


def _header_settings(file: Path, metadata: Mapping[str, str], prefix: str) -> Settings | None:
    """Settings in the header, whose keys have the prefix of the tensors' keys; None without any."""
    text = metadata.get(METADATA_KEY)
    if not text:
        return None
    source = f"{file}: {METADATA_KEY}"
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{source}: is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{source}: holds {type(values).__name__}, expected an object")
    for key in values:
        if not key.startswith(prefix):
            allowed = f"keys that begin with {prefix!r}, as the tensors' keys do"
            raise CheckpointError(f"{source}: key {shorten(key)} is not allowed; allowed: {allowed}")
    return parse_settings({key.removeprefix(prefix): value for key, value in values.items()}, source)


def _by_layer(
    file: Path,
    tensors: Mapping[str, torch.Tensor],
    prefix: str,
    layers: Mapping[str, Layer],
    problems: list[str],
) -> dict[str, dict[str, Named]]:
    """The file's tensors by layer and part of its update; what cannot be used is added to the problems."""
    names = layer_names(layers, prefix)
    found: dict[str, dict[str, Named]] = {}
    for key, tensor in tensors.items():
        meaning = parse_key(key, prefix, names)
        if any(part in key for part in DORA_PARTS):
            problems.append(f"{file}: tensor {key}: belongs to a DoRA adapter; these are not supported")
        elif not tensor.isfinite().all():
            problems.append(f"{file}: tensor {key}: holds NaN or infinity")
        elif meaning is None:
            problems.append(f"{file}: tensor {key}: is unexpected; allowed: LoRA tensors, prefix {prefix!r}")
        elif meaning.part in ("difference", "bias") and not tensor.any():
            continue  # changes nothing: converters write zeros for layers that were not trained
        elif meaning.part == "difference":
            problems.append(f"{file}: tensor {key}: is a full weight difference; allowed: low-rank updates")
        elif meaning.layer is None:
            problems.append(f"{file}: tensor {key}: the model has no linear layer of this name")
        else:
            parts = found.setdefault(meaning.layer, {})
            if meaning.part in parts:
                problems.append(f"{file}: tensor {key}: is the same as tensor {parts[meaning.part][0]}")
            parts[meaning.part] = (key, tensor)
    return found


def _update(
    file: Path,
    name: str,
    layer: Layer,
    parts: Mapping[str, Named],
    settings: Settings | None,
    problems: list[str],
) -> LowRank | None:
    """The layer's update, or None with what is wrong added to the problems."""
    before = len(problems)
    missing = [part for part in ("A", "B") if {"A": "down", "B": "up"}[part] not in parts]
    if missing:
        keys = ", ".join(key for key, _ in parts.values())
        problems.append(f"{file}: layer {name}: matrix {' and '.join(missing)} is missing beside {keys}")
        return None
    (down_key, down), (up_key, up) = parts["down"], parts["up"]
    rank = down.shape[0] if down.dim() else 0
    out, *inner = layer.weight.shape
    expected = {down_key: [rank, *inner], up_key: [out, rank, *(1 for _ in inner[1:])]}
    bias = parts["bias"][1] if "bias" in parts else None
    if bias is not None:
        expected[parts["bias"][0]] = [out]
    for key, tensor in parts.values():
        if key in expected and (list(tensor.shape) != expected[key] or rank == 0):
            wanted = expected[key] if rank else "a rank above 0"
            problems.append(f"{file}: tensor {key}: has shape {list(tensor.shape)}, expected {wanted}")
    if bias is not None and layer.bias is None:
        problems.append(f"{file}: tensor {parts['bias'][0]}: layer {name} has no bias")

    scaling = 1.0
    if settings is not None:
        _check_against(file, name, rank, parts, settings, problems)
        scaling = settings.scaling_of(name)
    elif "alpha" in parts:
        key, alpha = parts["alpha"]
        if alpha.numel() != 1:
            problems.append(f"{file}: tensor {key}: has shape {list(alpha.shape)}, expected one number")
        elif rank:
            scaling = float(alpha) / rank
    if len(problems) > before:
        return None
    if bias is not None and not parts["bias"][0].endswith(DIFFERENCE_ENDING):
        bias = bias.float() * scaling
    return LowRank(down=down.flatten(1), up=up.flatten(1), bias=bias, scaling=scaling)


def _check_against(
    file: Path, name: str, rank: int, parts: Mapping[str, Named], settings: Settings, problems: list[str]
) -> None:
    """Adds what disagrees between a layer's tensors and the settings."""
    if rank != settings.rank_of(name):
        problems.append(f"{settings.source}: rank {settings.rank_of(name)} of layer {name}: its tensors have {rank}")
    if "bias" in parts and not settings.lora_bias:
        problems.append(f"{file}: tensor {parts['bias'][0]}: {settings.source} has lora_bias false")
    if "alpha" in parts:
        problems.append(f"{file}: tensor {parts['alpha'][0]}: {settings.source} gives alpha already")


def _digest(file: Path, config: Path | None) -> str:
    digest = hashlib.sha256()
    for path in (file, config) if config else (file,):
        with path.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
