"""Schedules and steps against `HeliosDMDScheduler`."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from helios_engine.sampling.scheduler import stage_schedule
from helios_engine.sampling.solvers import DMDSolver
from parity.reference import relative_error, schedulers

OPTIONS: list[dict[str, Any]] = [
    {"use_dynamic_shifting": True},
    {"use_dynamic_shifting": True, "time_shift_type": "exponential"},
    {"shift": 3.0, "gamma": 0.25},
    {"stage_range": (0.0, 0.2, 0.7, 1.0)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("num_steps", [1, 2, 7])
@pytest.mark.parametrize("amplify", [False, True])
def test_steps_match_reference(options: dict[str, Any], stage: int, num_steps: int, amplify: bool) -> None:
    reference, config = schedulers(**options)
    tokens = 135 * 4**stage
    mu = tokens * (1.15 - 0.5) / (4096 - 256) + 0.5 - 256 * (1.15 - 0.5) / (4096 - 256)
    reference.set_timesteps(num_steps, stage, mu=mu, is_amplify_first_chunk=amplify)
    schedule = stage_schedule(config, stage, num_steps, tokens, amplify=amplify)
    assert list(schedule.timesteps) == [int(t) for t in reference.timesteps]

    generator = torch.Generator().manual_seed(0)
    start, velocity = (torch.randn(1, 16, 9, 4, 4, generator=generator) for _ in range(2))
    expected = actual = start
    solver = DMDSolver(schedule, start)
    for index, t in enumerate(reference.timesteps):
        expected = reference.step(
            velocity,
            t,
            expected,
            cur_sampling_step=index,
            dmd_noisy_tensor=start,
            dmd_sigmas=reference.sigmas,
            dmd_timesteps=reference.timesteps,
            all_timesteps=reference.timesteps,
            return_dict=False,
        )[0]
        actual = solver.step(actual, velocity)
        assert relative_error(actual, expected) < 1e-6
    shifted = replace(schedule, sigmas=(schedule.sigmas[0] + 1e-4, *schedule.sigmas[1:]))
    wrong, right = (DMDSolver(each, start).step(start, velocity) for each in (shifted, schedule))
    assert relative_error(wrong, right) > 1e-6
