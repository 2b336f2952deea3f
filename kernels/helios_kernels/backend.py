"""Where the kernels run: Triton if it is there, the tensor is on a GPU and no gradient is needed; else plain torch.

Launches name `enable_fp_fusion`: its default changes between the Triton releases that we support.
"""

import functools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec, TypeVar

import torch

try:
    import triton
    import triton.language as tl
    from triton.language import constexpr
except ImportError:  # not on this platform, or a CPU-only install
    triton = tl = constexpr = None

__all__ = [
    "block_of",
    "constexpr",
    "dense",
    "forward_only",
    "jit",
    "needs_gradient",
    "on_device",
    "refuse_gradient",
    "tl",
    "use_triton",
    "warps_for",
]

SWITCH = "HELIOS_KERNELS"
"""Environment variable: `reference` turns the Triton kernels off; `triton` gives them CPU tensors too, which only
Triton's interpreter takes."""


def jit(**options: Any) -> Callable[[Callable[..., None]], Any]:
    """`triton.jit(**options)`; without Triton the function as it is (nothing launches it then)."""

    def compiled_later(function: Callable[..., None]) -> Any:
        return triton.jit(function, **options) if triton is not None else function

    return compiled_later


def needs_gradient(*tensors: torch.Tensor | None) -> bool:
    """Whether autograd is recording and any of these asks for a gradient."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def use_triton(x: torch.Tensor, *others: torch.Tensor | None) -> bool:
    """Whether a kernel on x, with these other tensors, takes its Triton path.

    Not where a gradient is needed: the launchers have no backward. Not while torch.compile traces: it fuses the
    references itself.
    """
    if triton is None or torch.compiler.is_compiling() or needs_gradient(x, *others):
        return False
    choice = os.environ.get(SWITCH)
    return choice != "reference" and (x.is_cuda or choice == "triton")


P = ParamSpec("P")
R = TypeVar("R")


def refuse_gradient(name: str, *tensors: torch.Tensor | None) -> None:
    """Raises RuntimeError where what is named would lose a gradient."""
    if needs_gradient(*tensors):
        raise RuntimeError(f"{name}: has no backward; allowed: tensors that ask for no gradient, or torch.no_grad()")


def forward_only(launcher: Callable[P, R]) -> Callable[P, R]:
    """A launcher that raises RuntimeError where its result would have lost a gradient."""

    @functools.wraps(launcher)
    def checked(*args: P.args, **options: P.kwargs) -> R:
        refuse_gradient(launcher.__name__, *(x for x in (*args, *options.values()) if isinstance(x, torch.Tensor)))
        return launcher(*args, **options)

    return checked


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
