"""Every kernel compiles for an H100 at the model's own sizes, on any machine: Triton brings its assembler along.

The interpreter knows no tiles, layouts or registers; this finds what only the compiler refuses. Arguments are taken
from real launches: on meta tensors, with the kernel replaced by a recorder; what the launcher would compile for them is
what is compiled here.
"""

import os
import re
import subprocess
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


def vae_norm(
    memory: torch.memory_format,
    shape: tuple[int, ...] = (1, 384, 9, 48, 80),
    dtype: torch.dtype = torch.float32,
) -> None:
    x = empty(*shape, dtype=dtype).contiguous(memory_format=memory)
    channel_norm.channel_norm_triton(x, empty(shape[1], dtype=dtype), silu=True, past=2)


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


def specialised(kernel: Any, recorder: Recorder) -> tuple[Any, Any, list[Any], Any]:
    """By Triton's launcher, for compute capability 9.0: the backend, the arguments by name, what becomes part of
    the program (sizes of 1, multiples of 16, aligned pointers), and options."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import make_backend
    from triton.runtime.jit import create_function_from_signature

    backend = make_backend(GPUTarget("cuda", 90, 32))
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    return (backend, *bind(*recorder.arguments, **recorder.options))


def compiled(kernel: Any, recorder: Recorder) -> Any:
    """The kernel compiled exactly as the launch has it compiled."""
    import triton
    from triton.compiler import ASTSource

    backend, bound, special, rest = specialised(kernel, recorder)
    options, signature, constants, attributes = kernel._pack_args(backend, recorder.options, bound, special, rest)
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=backend.target, options=options.__dict__)


def registers(result: Any, folder: Path) -> int:
    """How many registers the assembler allotted to a thread."""
    import triton

    cubin = folder / "kernel.cubin"
    cubin.write_bytes(result.asm["cubin"])
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    command = [str(tools / "cuobjdump"), "--dump-resource-usage", str(cubin)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return max(map(int, re.findall(r"REG:(\d+)", listed)))


def loads(result: Any) -> dict[int, int]:
    """How many loads from memory move so many 32-bit registers."""
    widths = re.findall(r"ld\.global(?:\.v(\d))?", result.asm["ptx"])
    return {width: widths.count(str(width) if width > 1 else "") for width in (1, 2, 4)}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where programs are kept: nothing that was compiled before is used."""
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("the kernels are interpreted in this process")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    return tmp_path


def launched(monkeypatch: pytest.MonkeyPatch, module: ModuleType, kernel: str, launch: Callable[[], object]) -> Any:
    """The kernel, and what the launcher launches it with."""
    recorder, original = Recorder(), getattr(module, kernel)
    with monkeypatch.context() as patch:
        patch.setattr(module, kernel, recorder)
        launch()
    return original, recorder


@pytest.mark.parametrize("name", LAUNCHES)
def test_kernel_compiles(name: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = compiled(*launched(monkeypatch, *LAUNCHES[name]))
    assert result.asm["cubin"]
    assert ".local" not in result.asm["ptx"]  # no array of a thread lives in memory


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 96, 33, 384, 640), (1, 384, 9, 48, 80), (1, 192, 4, 192, 320)])
def test_vae_norm_reads_vectors_and_spares_registers(
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    memory: torch.memory_format,
) -> None:
    kernel, recorder = launched(
        monkeypatch, channel_norm, "_channel_norm_kernel", lambda: vae_norm(memory, shape, dtype)
    )
    result = compiled(kernel, recorder)
    threads = 32 * recorder.options["num_warps"]
    values = recorder.options["BLOCK_C"] * recorder.options["BLOCK_S"] // threads
    assert loads(result)[4] >= values * dtype.itemsize // 16
    assert (
        registers(result, cache) <= 144
    )  # 130 at most with Triton 3.6 to 3.9; 193 if sizes are not known to be aligned


def test_sizes_of_videos_share_a_few_programs(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    programs = set()
    for height in range(64, 769, 16):
        for frames in (1, 4, 5, 9):
            shape = (1, 384, frames, height // 8, 1280 // height * 2)
            kernel, recorder = launched(
                monkeypatch,
                channel_norm,
                "_channel_norm_kernel",
                lambda shape=shape: vae_norm(torch.channels_last_3d, shape, torch.float32),  # type: ignore[misc]
            )
            programs.add(str(specialised(kernel, recorder)[2]))
    assert 1 < len(programs) <= 8
