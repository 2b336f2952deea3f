"""Which path a call takes, and that the package works without Triton."""

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from helios_kernels import (
    backend,
    channel_norm,
    gated_residual,
    modulated_norm,
    norm_rotate,
    renoise,
    rgb,
    rms_norm,
    upsample,
    yuv420,
)

DISPATCHED: list[tuple[ModuleType, str, int, dict[str, Any]]] = [  # module, function, arguments
    (modulated_norm, "modulated_norm", 5, {}),
    (modulated_norm, "affine_norm", 4, {}),
    (gated_residual, "add_gated_modulated_norm", 7, {}),
    (gated_residual, "add_gated_affine_norm", 7, {}),
    (gated_residual, "add_noisy_modulated_norm", 6, {}),
    (norm_rotate, "norm_rotate", 7, {}),
    (rms_norm, "rms_norm", 3, {}),
    (channel_norm, "channel_norm", 2, {"silu": True}),
    (renoise, "renoise", 5, {}),
    (upsample, "upsample_renoise", 4, {}),
    (rgb, "rgb_frames", 1, {}),
    (yuv420, "yuv420_frames", 1, {}),
]


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize(("module", "name", "count", "named"), DISPATCHED)
def test_dispatch(
    module: ModuleType, name: str, count: int, named: dict[str, Any], on_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "use_triton", lambda *_: on_gpu)
    monkeypatch.setattr(module, f"{name}_triton", lambda *given, **_: ("triton", given))
    monkeypatch.setattr(module, f"{name}_ref", lambda *given, **_: ("reference", given))
    path, given = getattr(module, name)(*range(count), **named)
    assert path == ("triton" if on_gpu else "reference")
    assert given[:count] == tuple(range(count))


def test_only_cuda_tensors_take_triton_unless_the_environment_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu: Any = SimpleNamespace(is_cuda=True, requires_grad=False)
    monkeypatch.setattr(backend, "triton", object())
    monkeypatch.delenv(backend.SWITCH, raising=False)
    assert backend.use_triton(on_gpu)
    assert not backend.use_triton(torch.zeros(1))
    monkeypatch.setenv(backend.SWITCH, "reference")
    assert not backend.use_triton(on_gpu)
    monkeypatch.delenv(backend.SWITCH)
    monkeypatch.setattr(backend, "triton", None)
    assert not backend.use_triton(on_gpu)


def test_references_work_without_triton() -> None:
    modules = ", ".join(f"helios_kernels.{module.__name__.rpartition('.')[2]}" for module, *_ in DISPATCHED)
    code = (
        f"import sys; sys.modules['triton'] = None; import torch, {modules}; "
        "print(helios_kernels.rms_norm.rms_norm(torch.full((1, 1, 2), 3.0), torch.ones(2), 0.0).tolist())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[[[1.0, 1.0]]]"


def test_the_kernels_import_neither_engine_nor_service() -> None:
    found = {
        name.split(".")[0]
        for path in Path(backend.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])
    }
    assert found == {"collections", "contextlib", "functools", "helios_kernels", "os", "torch", "triton", "typing"}
