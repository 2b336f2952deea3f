"""Scheduler updates: launcher against reference, reference against the engine."""

import pytest
import torch

import kernel_checks
from helios_engine.sampling import noise
from helios_engine.sampling.scheduler import StageSchedule
from helios_engine.sampling.solvers import DMDSolver
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
def test_renoise_is_the_solvers_step(dtype: torch.dtype) -> None:
    start, latents = (random(1, 16, 3, 4, 6, device=CPU, seed=seed) for seed in (0, 1))
    schedule = StageSchedule(timesteps=(900.0, 500.0), sigmas=(0.9, 0.4, 0.0))
    solver = DMDSolver(schedule, start)
    for sigma, following in ((0.9, 0.4), (0.4, 0.0)):
        velocity = random(1, 16, 3, 4, 6, device=CPU, dtype=dtype, seed=2)
        expected = solver.step(latents, velocity)
        assert_close(renoise.renoise(latents, velocity, start, sigma, following), expected)
        latents = expected


def test_upsample_is_the_denoisers() -> None:
    latents, block_noise = random(1, 16, 3, 4, 6, device=CPU), random(1, 16, 3, 8, 12, device=CPU, seed=1)
    expected = noise.upsample(latents, block_noise, 1.2, 0.7)
    assert_close(upsample.upsample_renoise(latents, block_noise, 1.2, 0.7), expected)
