"""Reads an adapter's file and the settings that go with it. Pickle is never loaded.

Sources: `_fetch_state_dict` and `_load_sft_state_dict_metadata` (diffusers), `load_peft_weights` (PEFT).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from helios_engine.checkpoint.open import read_json
from helios_engine.checkpoint.weights import FLOATS
from helios_engine.errors import CheckpointError, shorten
from helios_engine.lora.names import file_prefix
from helios_engine.lora.settings import Settings, parse_settings

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
PEFT_FILE = "adapter_model.safetensors"
PEFT_CONFIG = "adapter_config.json"
METADATA_KEY = "lora_adapter_metadata"
INTEGERS = frozenset({"I64", "I32", "I16", "I8", "U8"})


@dataclass(frozen=True, kw_only=True, eq=False)
class AdapterFile:
    """What an adapter's file holds, on the CPU. `settings` is None without any; `digest` is of file and settings."""

    path: Path
    prefix: str
    tensors: Mapping[str, torch.Tensor]
    settings: Settings | None
    digest: str


def read_file(path: Path) -> AdapterFile:
    """Reads a .safetensors file, or the one of a folder. Raises CheckpointError."""
    file = _adapter_file(path)
    tensors, metadata = _read(file)
    prefix = file_prefix(tensors)
    config = file.with_name(PEFT_CONFIG) if file.name == PEFT_FILE else None
    settings = parse_settings(read_json(config), str(config)) if config else _header_settings(file, metadata, prefix)
    return AdapterFile(path=file, prefix=prefix, tensors=tensors, settings=settings, digest=_digest(file, config))


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


def _digest(file: Path, config: Path | None) -> str:
    digest = hashlib.sha256()
    for path in (file, config) if config else (file,):
        with path.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
