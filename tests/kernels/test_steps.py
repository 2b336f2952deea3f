"""Scheduler updates: launcher against reference, reference against the formula."""

import pytest
import torch

import kernel_checks
from helios_kernels import renoise, upsample
from kernel_checks import assert_close, random

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(1, 1, 1, 1, 1), (1, 2, 3, 5, 7), (2, 16, 9, 2, 4)]
CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_launchers(device: torch.device, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    kernel_checks.upsample(upsample, device, dtype, shape)
    for following in (0.0, 0.3, 0.9):  # torch's lerp has two formulas, below and above one half
        kernel_checks.renoise(renoise, device, dtype, shape, following)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_renoise_is_its_formula(dtype: torch.dtype) -> None:
    latents, start = (random(1, 16, 3, 4, 6, device=CPU, seed=seed) for seed in (0, 1))
    velocity = random(1, 16, 3, 4, 6, device=CPU, dtype=dtype, seed=2)
    x0 = latents - 0.9 * velocity.float()
    for following in (0.0, 0.4, 0.9):
        expected = x0 + following * (start - x0)
        assert_close(renoise.renoise(latents, velocity, start, 0.9, following), expected)


def test_upsample_is_its_formula() -> None:
    latents, noise = random(1, 16, 3, 4, 6, device=CPU), random(1, 16, 3, 8, 12, device=CPU, seed=1)
    expected = torch.empty_like(noise)
    for row in range(2):
        for column in range(2):
            expected[..., row::2, column::2] = 1.2 * latents + 0.7 * noise[..., row::2, column::2]
    assert_close(upsample.upsample_renoise(latents, noise, 1.2, 0.7), expected)
