"""References are differentiable; launchers raise where a gradient would be lost; calls then take the references."""

from collections.abc import Callable
from functools import partial
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
    rms_norm,
    upsample,
)
from kernel_checks import EPS, random

Call = Callable[..., Any]
H, K, D, N = 3, 4, 12, 2
"""Heads, head width, width, history tokens."""


def tensors(dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    """N(0, 1) of these shapes."""
    return [random(*shape, device=torch.device("cpu"), dtype=dtype, seed=n) for n, shape in enumerate(shapes)]


def rotated(name: str, q: Any, k: Any, q_weight: Any, k_weight: Any, scale: Any) -> Any:
    table = torch.polar(torch.ones(5, K // 2), torch.linspace(0, 3, 5 * K // 2).view(5, -1))
    return getattr(norm_rotate, name)(q, k, q_weight, k_weight, table.to(q.device), H, EPS, N, scale)


CASES: dict[str, tuple[Any, str, Call, list[tuple[int, ...]]]] = {
    # module, function, its call with the tensors that may ask for gradients, their shapes
    "modulated_norm": (
        modulated_norm,
        "modulated_norm",
        lambda name, x, shift, scale: getattr(modulated_norm, name)(x, N, shift, scale, EPS),
        [(2, 5, D), (2, D), (2, D)],
    ),
    "affine_norm": (
        modulated_norm,
        "affine_norm",
        lambda name, *given: getattr(modulated_norm, name)(*given, EPS),
        [(2, 5, D), (D,), (D,)],
    ),
    "add_gated_modulated_norm": (
        gated_residual,
        "add_gated_modulated_norm",
        lambda name, x, update, *rows: getattr(gated_residual, name)(x, update, N, *rows, EPS),
        [(2, 5, D), (2, 5, D), (2, D), (2, D), (2, D)],
    ),
    "add_gated_affine_norm": (
        gated_residual,
        "add_gated_affine_norm",
        lambda name, x, update, *rest: getattr(gated_residual, name)(x, update, N, *rest, EPS),
        [(2, 5, D), (2, 5, D), (2, D), (D,), (D,)],
    ),
    "add_noisy_modulated_norm": (
        gated_residual,
        "add_noisy_modulated_norm",
        lambda name, x, update, *rows: getattr(gated_residual, name)(x, update, N, *rows, EPS),
        [(2, 5, D), (2, 3, D), (2, D), (2, D)],
    ),
    "norm_rotate": (norm_rotate, "norm_rotate", rotated, [(2, 3, D), (2, 5, D), (D,), (D,), (H,)]),
    "rms_norm": (
        rms_norm,
        "rms_norm",
        lambda name, *given: getattr(rms_norm, name)(*given, EPS),
        [(2, 5, D), (D,)],
    ),
    "channel_norm": (
        channel_norm,
        "channel_norm",
        lambda name, x, gamma: getattr(channel_norm, name)(x, gamma, silu=True, past=2),
        [(1, 5, 2, 2, 3), (5,)],
    ),
    "renoise": (
        renoise,
        "renoise",
        lambda name, *given: getattr(renoise, name)(*given, 0.8, 0.3),
        [(1, 2, 3, 2, 2)] * 3,
    ),
    "upsample_renoise": (
        upsample,
        "upsample_renoise",
        lambda name, *given: getattr(upsample, name)(*given, 1.3, 0.4),
        [(1, 2, 3, 2, 2), (1, 2, 3, 4, 4)],
    ),
}


def loss(result: Any) -> torch.Tensor:
    """A number that every value has its own share in."""
    parts = result if isinstance(result, tuple) else (result,)
    return torch.stack([(part * torch.linspace(-1, 2, part.numel()).view(part.shape)).sum() for part in parts]).sum()


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_finite_differences(case: str) -> None:
    _, name, call, shapes = CASES[case]
    given = [x.requires_grad_() for x in tensors(torch.float32, *shapes)]
    loss(call(f"{name}_ref", *given)).backward()
    for index, x in enumerate(given):
        assert x.grad is not None
        way = random(*x.shape, device=torch.device("cpu"), seed=20 + index)
        slope = float((x.grad * way).sum())

        def moved(step: float, index: int = index, way: torch.Tensor = way) -> float:
            with torch.no_grad():
                others = [other + step * way if n == index else other for n, other in enumerate(given)]
                return float(loss(call(f"{name}_ref", *others)).double())

        step = 5e-3
        found = (8 * (moved(step) - moved(-step)) - (moved(2 * step) - moved(-2 * step))) / (12 * step)
        assert found == pytest.approx(slope, rel=5e-3, abs=2e-2)


@pytest.mark.parametrize("case", CASES)
def test_with_gradients_the_reference_computes_what_it_does_without(case: str) -> None:
    _, name, call, shapes = CASES[case]
    given = tensors(torch.float32, *shapes)
    with torch.inference_mode():
        plain = loss(call(f"{name}_ref", *given))
    assert loss(call(f"{name}_ref", *(x.requires_grad_() for x in given))).item() == pytest.approx(
        plain.item(), rel=1e-5
    )


@pytest.mark.parametrize("case", CASES)
def test_a_launcher_refuses_to_lose_a_gradient(case: str, device: torch.device) -> None:
    """Whichever of its tensors asks for one."""
    _, name, call, shapes = CASES[case]
    launch = partial(call, f"{name}_triton")
    for asking in range(len(shapes)):
        given = [x.to(device).requires_grad_(n == asking) for n, x in enumerate(tensors(torch.float32, *shapes))]
        with pytest.raises(RuntimeError, match=f"{name}_triton: has no backward"):
            launch(*given)
        with torch.no_grad():
            launch(*given)


@pytest.mark.parametrize("case", CASES)
def test_a_call_that_needs_a_gradient_takes_the_reference(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name, call, shapes = CASES[case]
    monkeypatch.setenv(backend.SWITCH, "triton")
    monkeypatch.setattr(backend, "triton", object())
    launched = list[str]()
    monkeypatch.setattr(module, f"{name}_triton", lambda *_, **__: launched.append(name))
    for asking in range(len(shapes)):
        given = [x.requires_grad_(n == asking) for n, x in enumerate(tensors(torch.float32, *shapes))]
        loss(call(name, *given)).backward()
        assert given[asking].grad is not None
    assert launched == []
    call(name, *tensors(torch.float32, *shapes))
    assert launched == [name]
