"""Schedules and steps of Base and Mid against `HeliosScheduler`."""

from typing import Any

import numpy as np
import pytest
import torch

from helios_engine.sampling.scheduler import single_schedule, stage_schedule
from helios_engine.sampling.solvers import make_solver
from parity.reference import relative_error, solvers

OPTIONS: list[dict[str, Any]] = [
    {},
    {"use_dynamic_shifting": True},
    {"use_dynamic_shifting": True, "time_shift_type": "linear", "lower_order_final": False},
    {"solver_order": 3, "solver_type": "bh1", "shift": 3.0},
    {"solver_order": 3, "disable_corrector": (0, 2), "solver_type": "logrho"},
    {"solver_order": 1},
    {"scheduler_type": "euler"},
]
TOKENS = 540
MU = TOKENS * (1.15 - 0.5) / (4096 - 256) + 0.5 - 256 * (1.15 - 0.5) / (4096 - 256)


def compare(reference: Any, config: Any, schedule: Any) -> float:
    """The worst error of all steps with the same random velocities."""
    solver = make_solver(config, schedule, torch.empty(0))
    generator = torch.Generator().manual_seed(0)
    expected = actual = torch.randn(1, 16, 9, 4, 4, generator=generator)
    errors = [0.0]
    for t in reference.timesteps:
        velocity = torch.randn(expected.shape, generator=generator)
        expected = reference.step(velocity, t, expected, return_dict=False)[0]
        actual = solver.step(actual, velocity)
        errors.append(relative_error(actual, expected))
    return max(errors)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 9])
def test_pyramid_stages(options: dict[str, Any], stage: int, num_steps: int) -> None:
    reference, config = solvers(**options)
    reference.set_timesteps(num_steps, stage, mu=MU)
    schedule = stage_schedule(config, stage, num_steps, TOKENS)
    assert list(schedule.timesteps) == [int(t) for t in reference.timesteps]
    assert np.allclose(schedule.sigmas, reference.sigmas.numpy(), rtol=1e-12)
    assert compare(reference, config, schedule) < 1e-5


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("num_steps", [1, 2, 20])
def test_single_stage(options: dict[str, Any], num_steps: int) -> None:
    reference, config = solvers(**options | {"stages": 1, "stage_range": (0.0, 1.0)})
    # the pipeline gives the noise levels, to which the reference applies the dynamic shift only
    reference.set_timesteps(num_steps, mu=MU, sigmas=np.linspace(0.999, 0.0, num_steps + 1)[:-1])
    schedule = single_schedule(config, num_steps, TOKENS)
    assert np.allclose(schedule.timesteps, reference.timesteps.numpy(), rtol=1e-12)
    assert compare(reference, config, schedule) < 1e-5


def test_a_requests_shift_replaces_the_dynamic_one() -> None:
    reference, config = solvers(use_dynamic_shifting=True, time_shift_type="linear")
    reference.set_timesteps(5, 1, mu=2.5)
    schedule = stage_schedule(config, 1, 5, TOKENS, shift=2.5)
    assert np.allclose(schedule.sigmas, reference.sigmas.numpy(), rtol=1e-12)
    assert schedule != stage_schedule(config, 1, 5, TOKENS)


def test_comparison_catches_a_missing_corrector() -> None:
    reference, config = solvers()
    reference.set_timesteps(4, 0, mu=MU)
    wrong = solvers(disable_corrector=(1,))[1]
    assert compare(reference, wrong, stage_schedule(config, 0, 4, TOKENS)) > 1e-4
