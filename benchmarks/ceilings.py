"""What a machine can do at most, as measured on it, and the least time that a row can take under that."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.counts import Product, parts, text_encoder
from benchmarks.kernel_timing import copy_bandwidth
from benchmarks.roofline import floor_s
from benchmarks.sizes import Size
from benchmarks.timing import matmul_peak

COPIES = 20


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """Rates of the best matrix product in the model's dtype and in float32 (TF32 on a GPU), and of a copy.

    copy_bytes_per_s: None on a CPU, where these sizes stay in its caches.
    """

    matmul_flops_per_s: float
    float32_matmul_flops_per_s: float
    copy_bytes_per_s: float | None

    def record(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return asdict(self)


def ceilings(size: Size) -> Ceilings:
    """Measures them."""
    peak = matmul_peak(size.device, size.dtype)
    plain = size.dtype == torch.float32
    on_gpu = size.device == "cuda"
    return Ceilings(
        matmul_flops_per_s=peak,
        float32_matmul_flops_per_s=peak if plain else matmul_peak(size.device, torch.float32),
        copy_bytes_per_s=copy_bandwidth(torch.device(size.device), COPIES) if on_gpu else None,
    )


def least_s(size: Size, costs: Iterable[str], machine: Ceilings, prompt_tokens: int) -> float:
    """Seconds for the parts of counts.py in series; the prompt is counted at its own length."""
    counted: dict[str, list[Product]] = {**parts(size), "text encode": text_encoder(size.text, prompt_tokens)}
    bandwidth = machine.copy_bytes_per_s or float("inf")

    def part_s(name: str) -> float:
        if name.startswith("vae"):
            return floor_s(counted[name], machine.float32_matmul_flops_per_s, bandwidth, torch.float32.itemsize)
        return floor_s(counted[name], machine.matmul_flops_per_s, bandwidth, size.dtype.itemsize)

    return sum(part_s(name) for name in costs)
