"""A run's state in one safetensors file, replaced atomically: whoever dies, the file is a whole older or newer one."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from helios_training.errors import TrainingError


def write_snapshot(file: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
    """facts: what JSON can hold. Raises TrainingError naming the file when the disk is full or not writable."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, beside, metadata={"format": "pt", "facts": json.dumps(facts)})
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(file)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        kept = "the snapshot before it is whole" if file.exists() else "there is none before it"
        raise TrainingError(f"{file}: cannot be written ({error}); {kept}") from None


def read_snapshot(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and facts. Raises TrainingError for a file that is damaged or was written by something else."""
    try:
        with safe_open(file, framework="pt") as snapshot:
            facts = json.loads((snapshot.metadata() or {})["facts"])
            return {name: snapshot.get_tensor(name) for name in snapshot.keys()}, facts  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise TrainingError(f"{file}: is no whole snapshot of a training run: {error}") from None


def pack_snapshot(file: Path, target: Path) -> None:
    """A snapshot in less than a third of the bytes, to be kept in a repository; a run goes on from it as from `file`.

    Weights become float16, second moments bfloat16. Averages and first moments are left out: a few steps rebuild these.
    """
    tensors, facts = read_snapshot(file)
    kinds = {".weight.": torch.float16, ".exp_avg_sq.": torch.bfloat16}
    packed = {
        name: tensor.to(dtype) for name, tensor in tensors.items() for kind, dtype in kinds.items() if kind in name
    }
    write_snapshot(target, packed, facts)
