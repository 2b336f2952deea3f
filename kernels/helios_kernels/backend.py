"""Where the kernels run: Triton if it is there and the tensor is on a GPU, otherwise plain torch.

Launches name `enable_fp_fusion`: its default changes between the Triton releases that we support.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

try:
    import triton
    import triton.language as tl
    from triton.language import constexpr
except ImportError:  # not on this platform, or a CPU-only install
    triton = tl = constexpr = None

__all__ = ["at_rows", "block_of", "constexpr", "dense", "jit", "on_device", "tl", "use_triton", "warps_for"]

SWITCH = "HELIOS_KERNELS"
"""Environment variable: `reference` turns the Triton kernels off; `triton` gives them CPU tensors too, which only
Triton's interpreter takes."""


def jit(**options: Any) -> Callable[[Callable[..., None]], Any]:
    """`triton.jit(**options)`; without Triton the function as it is (nothing launches it then)."""

    def compiled_later(function: Callable[..., None]) -> Any:
        return triton.jit(function, **options) if triton is not None else function

    return compiled_later


def use_triton(x: torch.Tensor) -> bool:
    """Whether a kernel on x takes its Triton path. Not while torch.compile traces: it fuses the references itself."""
    if triton is None or torch.compiler.is_compiling():
        return False
    choice = os.environ.get(SWITCH)
    return choice != "reference" and (x.is_cuda or choice == "triton")


def on_device(x: torch.Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, which need not be x's."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def block_of(size: int) -> int:
    """The power of two that covers `size`: Triton's tiles have no other sizes."""
    return 1 << max(size - 1, 0).bit_length()


def warps_for(elements: int) -> int:
    """Warps of a program that holds this many float32 values: about 32 a thread, so that they stay in registers."""
    return min(max(elements // 1024, 4), 16)


def dense(x: torch.Tensor) -> torch.Tensor:
    """x, copied if its last dimension is not contiguous: rows are read as one run; batch and token strides are free."""
    return x if x.stride(-1) == 1 else x.contiguous()


def at_rows(x_BLD: torch.Tensor, history_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Views of x: history tokens (modulated by row 0) and noisy ones (row 1)."""
    return x_BLD[:, :history_tokens], x_BLD[:, history_tokens:]
