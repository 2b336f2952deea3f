"""The checks notice a wrong kernel: each mutant differs from the original in one place and must fail its check."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

import helios_kernels
import kernel_checks
from helios_kernels import gated_residual

FOLDER = Path(helios_kernels.__file__).parent
FP32 = torch.float32
Check = Callable[[ModuleType, torch.device], None]


def norms(module: ModuleType, device: torch.device) -> None:
    kernel_checks.modulated_norm(module, device, FP32, (2, 5, 90, 2), "sliced")


def residuals(module: ModuleType, device: torch.device) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gated_residual, "launch", module.launch)
        kernel_checks.gated_residual(gated_residual, device, FP32, (2, 5, 90, 2), "sliced")


def rotation(module: ModuleType, device: torch.device) -> None:
    kernel_checks.norm_rotate(module, device, FP32, (2, 5, 3, 6, 2), scales=3, first=2)


def channels(module: ModuleType, device: torch.device) -> None:
    kernel_checks.channel_norm(module, device, FP32, (2, 5, 3, 2, 3), "contiguous")


def rms(module: ModuleType, device: torch.device) -> None:
    kernel_checks.rms_norm(module, device, FP32, (2, 5, 90, 0), "contiguous")


def steps(module: ModuleType, device: torch.device) -> None:
    kernel_checks.renoise(module, device, FP32, (1, 2, 3, 4, 5), 0.3)


def doubling(module: ModuleType, device: torch.device) -> None:
    kernel_checks.upsample(module, device, FP32, (1, 2, 3, 4, 5))


def colours(module: ModuleType, device: torch.device) -> None:
    kernel_checks.rgb(module, device, FP32, (2, 6, 10))


def planes(module: ModuleType, device: torch.device) -> None:
    kernel_checks.yuv420(module, device, FP32, (2, 6, 10))


MUTANTS: list[tuple[str, Check, str, str]] = [
    ("modulated_norm", norms, "token < history_tokens", "token <= history_tokens"),
    ("modulated_norm", norms, "tl.where(inside, x - tl.sum(x, axis=0) / WIDTH, 0.0)", "x - tl.sum(x, axis=0) / WIDTH"),
    ("modulated_norm", norms, "scale += 1.0", "scale += 0.0"),
    ("modulated_norm", norms, "/ WIDTH + eps", "/ (WIDTH + 1) + eps"),
    ("gated_residual_kernel", residuals, "token < history_tokens", "token <= history_tokens"),
    ("gated_residual_kernel", residuals, "(token - update_from) * update", "(token - update_from) // 2 * update"),
    ("gated_residual_kernel", residuals, "token >= norm_from", "token > norm_from"),
    ("gated_residual_kernel", residuals, "token >= update_from", "token >= 0 * update_from"),
    ("gated_residual_kernel", residuals, "x.to(tl.float32) + update", "update"),
    ("rms_norm", rms, "* weight\n", "\n"),
    ("norm_rotate", rotation, "tl.join(even * cos - odd", "tl.join(even * cos + odd"),
    ("norm_rotate", rotation, "tl.where(token < history_tokens", "tl.where(token <= history_tokens"),
    ("norm_rotate", rotation, "(tokens - first) + asking", "(tokens - first) + 0 * asking"),
    ("norm_rotate", rotation, "head * SCALE_STRIDE", "0 * head"),
    ("norm_rotate", rotation, "table_ptr + token * WIDTH", "table_ptr + (index % (tokens - 1)) * WIDTH"),
    ("channel_norm", channels, "(position - padding) * x", "position * 0 + x"),
    ("channel_norm", channels, "(gamma * root)", "gamma"),
    ("channel_norm", channels, "if SILU", "if not SILU"),
    ("renoise", steps, "result = latents - sigma", "result = latents - following"),
    ("upsample", doubling, "(row // 2) * width", "row * width // 2"),
    ("rgb", colours, "(scaled + 12582912.0) - 12582912.0", "scaled"),
    ("rgb", colours, "tl.maximum(pixel.to(tl.float32), -1.0)", "pixel.to(tl.float32)"),
    ("yuv420", planes, "2 * row - 1 + tap", "2 * row + tap"),
    ("yuv420", planes, "red + 3.0 * r", "red + 2.0 * r"),
]


def loaded(path: Path) -> ModuleType:
    """Triton reads a kernel's text from its file, so a mutant is a file too."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "check", "original", "mutation"), MUTANTS)
def test_mutant_fails(
    device: torch.device, tmp_path: Path, name: str, check: Check, original: str, mutation: str
) -> None:
    source = (FOLDER / f"{name}.py").read_text()
    assert source.count(original) == 1
    check(loaded(FOLDER / f"{name}.py"), device)
    mutant = tmp_path / f"{name}_mutant.py"
    mutant.write_text(source.replace(original, mutation, 1))
    with pytest.raises(AssertionError):
        check(loaded(mutant), device)
