"""Parts of a batch: for accumulation, and for several processes that share one."""

from dataclasses import fields, replace
from typing import Any, TypeVar

import torch

B = TypeVar("B")


def length(batch: Any) -> int:
    """Samples of a batch: a dataclass of tensors and lists, all as long as the batch, and of scalars."""
    return next(len(value) for value in _values(batch).values() if _is_rows(value))


def narrow(batch: B, start: int, count: int) -> B:
    """Samples start … start + count of it."""
    rows = {name: value[start : start + count] for name, value in _values(batch).items() if _is_rows(value)}
    return replace(batch, **rows)  # type: ignore[type-var]


def to_device(batch: B, device: torch.device) -> B:
    """Its tensors on the device."""
    moved = {name: value.to(device) for name, value in _values(batch).items() if isinstance(value, torch.Tensor)}
    return replace(batch, **moved)  # type: ignore[type-var]


def _values(batch: Any) -> dict[str, Any]:
    return {field.name: getattr(batch, field.name) for field in fields(batch)}


def _is_rows(value: Any) -> bool:
    return isinstance(value, torch.Tensor | list)
