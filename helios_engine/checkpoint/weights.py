"""Strict loading of (sharded) safetensors, straight to the target device and dtype. Pickle is never loaded.

A shard is mapped, not read: its pages count as host memory while any tensor of it is alive. So every tensor is copied
out, and at most one shard is mapped at a time (benchmarks/load.py measures that).
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from helios_engine.checkpoint.open import read_json
from helios_engine.errors import CheckpointError

STEMS = ("diffusion_pytorch_model", "model")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
IGNORED_PARTS = ("norm_added_q",)
"""As the reference ignores them (`_keys_to_ignore_on_load_unexpected`)."""
FLOATS = {"F64", "F32", "F16", "BF16"}


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """What a shard's header says of a tensor."""

    file: Path
    shape: torch.Size
    dtype: str


def load_weights(
    folder: Path,
    expected: Mapping[str, torch.Size],
    *,
    device: str | torch.device,
    dtype_of: Callable[[str], torch.dtype],
    ignored_prefixes: tuple[str, ...] = (),
) -> dict[str, torch.Tensor]:
    """All `expected` tensors of a component's folder. Raises CheckpointError naming each file and tensor that is wrong.

    Host memory: at most one shard beside the weights, and for another device than the CPU at most one shard.
    """
    return dict(stream_weights(folder, expected, device=device, dtype_of=dtype_of, ignored_prefixes=ignored_prefixes))


def stream_weights(
    folder: Path,
    expected: Mapping[str, torch.Size],
    *,
    device: str | torch.device,
    dtype_of: Callable[[str], torch.dtype],
    ignored_prefixes: tuple[str, ...] = (),
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of `load_weights` with their names, shard by shard, for a caller that does not keep them all.

    Everything but the tensors' data is checked before the first one. Raises CheckpointError as `load_weights` does.
    """
    headers = read_headers(folder)
    problems = compare(folder, headers, expected, ignored_prefixes)
    if problems:
        raise CheckpointError("\n".join(problems))
    for file in sorted({headers[name].file for name in expected}):
        with _opened(file, str(device)) as shard:
            for name in sorted(shard.keys()):
                if name in expected:
                    yield name, _own(shard.get_tensor(name), dtype_of(name))


def _own(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor in `dtype`, in memory of its own.

    On the CPU a shard's tensor is a view of the mapped file. A single one that is kept, say a float32 norm of a model
    in bfloat16, would keep the pages of the whole shard; and a file that is changed later would change the weights.
    """
    return tensor.to(dtype, copy=tensor.device.type == "cpu")


def compare(
    folder: Path,
    headers: Mapping[str, TensorInfo],
    expected: Mapping[str, torch.Size],
    ignored_prefixes: tuple[str, ...] = (),
) -> list[str]:
    """What is missing, unexpected, mis-shaped or no floating-point tensor; empty when all is well."""
    problems = [f"{folder}: tensor {name}: is missing" for name in sorted(expected.keys() - headers.keys())]
    for name, info in sorted(headers.items()):
        if name not in expected:
            if not name.startswith(ignored_prefixes) and not any(part in name for part in IGNORED_PARTS):
                problems.append(f"{info.file}: tensor {name}: is unexpected")
        elif info.shape != expected[name]:
            found, wanted = list(info.shape), list(expected[name])
            problems.append(f"{info.file}: tensor {name}: has shape {found}, expected {wanted}")
        elif info.dtype not in FLOATS:
            problems.append(f"{info.file}: tensor {name}: has dtype {info.dtype}, expected one of {sorted(FLOATS)}")
    return problems


def read_headers(folder: Path) -> dict[str, TensorInfo]:
    """Every tensor of a component's shards, from their headers.

    Raises CheckpointError naming each shard that cannot be read or does not hold what the index says, one a line.
    """
    headers: dict[str, TensorInfo] = {}
    problems: list[str] = []
    for file, indexed in _shards(folder).items():
        try:
            found = _read_header(file, indexed)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        headers |= found
        for name in sorted((indexed or found.keys()) ^ found.keys()):
            where = "is not in the index" if name in found else "is not in it"
            problems.append(f"{file}: tensor {name}: {where} (index and shard disagree)")
    if problems:
        raise CheckpointError("\n".join(problems))
    return headers


def _read_header(file: Path, indexed: Collection[str] | None) -> dict[str, TensorInfo]:
    if not file.is_file():
        raise CheckpointError(
            f"{file}: is missing" + (f" (the index names it for tensor {min(indexed)})" if indexed else "")
        )
    with _opened(file, "cpu") as shard:
        parts = {name: shard.get_slice(name) for name in shard.keys()}  # noqa: SIM118 (no mapping)
        return {
            name: TensorInfo(file=file, shape=torch.Size(part.get_shape()), dtype=part.get_dtype())
            for name, part in parts.items()
        }


def _shards(folder: Path) -> dict[Path, set[str] | None]:
    """Shard files, each with the tensors that the index says it holds (None without an index)."""
    for stem in STEMS:
        index = folder / f"{stem}.safetensors.index.json"
        if index.exists():
            return _indexed(index)
        single = folder / f"{stem}.safetensors"
        if single.exists():
            return {single: None}
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise CheckpointError(f"{folder}: holds only pickled weights ({pickles[0]}), which are never loaded")
    raise CheckpointError(f"{folder}: holds no {' or '.join(f'{stem}.safetensors' for stem in STEMS)} (or its index)")


def _indexed(index: Path) -> dict[Path, set[str] | None]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: weight_map: is missing or empty")
    shards: dict[Path, set[str] | None] = {}
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index}: tensor {tensor}: file {name!r} is not a safetensors file beside the index")
        names = shards.setdefault(index.parent / name, set())
        assert names is not None
        names.add(tensor)
    return shards


@contextmanager
def _opened(file: Path, device: str) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt", device=device) as shard:
            yield shard
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: is truncated or no safetensors file: {error}") from None
