"""Every kernel compiles for an H100 at the model's own sizes, on any machine: Triton brings its assembler along.

The interpreter knows no tiles, layouts or registers; this finds what only the compiler refuses. Arguments are taken
from real launches: on meta tensors, with the kernel replaced by a recorder.
"""

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from helios_kernels import (
    channel_norm,
    gated_residual,
    gated_residual_kernel,
    modulated_norm,
    norm_rotate,
    renoise,
    rgb,
    rms_norm,
    upsample,
    yuv420,
)

TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.uint8: "u8"}
L, N, D, H = 11040, 2400, 5120, 40


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor without memory."""
    return torch.empty(shape, dtype=dtype, device="meta")


def bf16(*shape: int) -> torch.Tensor:
    """A bfloat16 tensor without memory."""
    return empty(*shape, dtype=torch.bfloat16)


def rotate() -> None:
    q, k, _ = bf16(1, L, 3 * D).chunk(3, dim=-1)
    norm_rotate.norm_rotate_triton(q, k, bf16(D), bf16(D), empty(L, D // H // 2, 2), H, 1e-6, N, empty(H))


def vae_norm(memory: torch.memory_format) -> None:
    x = empty(1, 384, 9, 48, 80).contiguous(memory_format=memory)
    channel_norm.channel_norm_triton(x, empty(384), silu=True, past=2)


def gated_norm() -> None:
    gate, shift, scale = (empty(2, D) for _ in range(3))
    x, update = bf16(1, L, D), bf16(1, L, D)
    gated_residual.add_gated_modulated_norm_triton(x, update, N, gate, shift, scale, 1e-6)


def step() -> None:
    latents, velocity, start = (empty(1, 16, 9, 48, 80) for _ in range(3))
    renoise.renoise_triton(latents, velocity, start, 0.9, 0.4)


LAUNCHES: dict[str, tuple[ModuleType, str, Callable[[], object]]] = {
    "modulated_norm": (
        modulated_norm,
        "_modulated_norm_kernel",
        lambda: modulated_norm.modulated_norm_triton(bf16(1, L, D), N, empty(2, D), empty(2, D), 1e-6),
    ),
    "add_gated": (
        gated_residual_kernel,
        "_gated_residual_kernel",
        lambda: gated_residual.add_gated_triton(bf16(1, L, D), bf16(1, L, D), N, empty(2, D)),
    ),
    "add_gated_modulated_norm": (gated_residual_kernel, "_gated_residual_kernel", gated_norm),
    "norm_rotate": (norm_rotate, "_norm_rotate_kernel", rotate),
    "rms_norm": (rms_norm, "_rms_norm_kernel", lambda: rms_norm.rms_norm_triton(bf16(1, L, D), bf16(D), 1e-6)),
    "channel_norm": (channel_norm, "_channel_norm_kernel", lambda: vae_norm(torch.contiguous_format)),
    "channel_norm, channels last": (channel_norm, "_channel_norm_kernel", lambda: vae_norm(torch.channels_last_3d)),
    "renoise": (renoise, "_renoise_kernel", step),
    "upsample": (
        upsample,
        "_upsample_kernel",
        lambda: upsample.upsample_renoise_triton(empty(1, 16, 9, 24, 40), empty(1, 16, 9, 48, 80), 1.2, 0.7),
    ),
    "rgb": (rgb, "_rgb_kernel", lambda: rgb.rgb_frames_triton(empty(3, 33, 384, 640))),
    "yuv420": (yuv420, "_yuv420_kernel", lambda: yuv420.yuv420_frames_triton(empty(3, 33, 384, 640))),
    "yuv420 of RGB": (
        yuv420,
        "_yuv420_kernel",
        lambda: yuv420.yuv420_frames_triton(empty(33, 384, 640, 3, dtype=torch.uint8)),
    ),
}


class Recorder:
    """Stands for a kernel and keeps what it is launched with."""

    def __init__(self) -> None:
        self.arguments: tuple[Any, ...] = ()
        self.options: dict[str, Any] = {}

    def __getitem__(self, grid: tuple[int, ...]) -> "Recorder":
        assert all(0 < size < 2**31 for size in grid)
        return self

    def __call__(self, *arguments: Any, **options: Any) -> None:
        self.arguments, self.options = arguments, options


def compiled(kernel: Any, recorder: Recorder) -> Any:
    """The kernel compiled for compute capability 9.0 with the arguments of a launch, as Triton's launcher does it."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature: dict[str, str] = {}
    constants: dict[tuple[int], Any] = {}
    attributes: dict[tuple[int], Any] = {}
    named = {name: recorder.options.pop(name) for name in kernel.arg_names if name in recorder.options}
    values = [*recorder.arguments, *named.values()]
    for index, (name, value) in enumerate(zip(kernel.arg_names, values, strict=True)):
        if isinstance(value, torch.Tensor):
            signature[name] = "*" + TYPES[value.dtype]
            attributes[index,] = [["tt.divisibility", 16]]
        elif name in named or value is None or (isinstance(value, int) and value == 1):
            signature[name] = "constexpr"
            constants[index,] = value
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32" if value < 2**31 else "i64"
            if value % 16 == 0:
                attributes[index,] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=recorder.options)


@pytest.mark.parametrize("name", LAUNCHES)
def test_kernel_compiles(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("the kernels are interpreted in this process")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    module, kernel, launch = LAUNCHES[name]
    recorder, original = Recorder(), getattr(module, kernel)
    monkeypatch.setattr(module, kernel, recorder)
    launch()
    result = compiled(original, recorder)
    assert result.asm["cubin"]
    assert ".local" not in result.asm["ptx"]  # no array of a thread lives in memory
