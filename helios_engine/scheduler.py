"""Noise schedule of step-distilled Helios: x0 prediction over a three-stage pyramid.

Source: `HeliosDMDScheduler` (diffusers). Everything here is a handful of float64 scalars per stage, computed on the
host before the first step, so that sampling never waits for the device.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from helios_engine.configs import SchedulerConfig

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One denoising step: x0 = x - sigma * v, then x = (1 - next_sigma) * x0 + next_sigma * start noise."""

    timestep: int
    sigma: float
    next_sigma: float
    """0 in the last step: x = x0."""


@dataclass(frozen=True, kw_only=True)
class StageSchedule:
    """The steps of one pyramid stage; `alpha` and `beta` mix the upsampled latents with block noise at its start."""

    steps: tuple[Step, ...]
    alpha: float
    beta: float


@dataclass(frozen=True, kw_only=True)
class _Stage:
    start_sigma: float
    """Noise level at the stage's start before correction for the upsampling."""
    timesteps: tuple[float, float]
    """First and last of the stage's 1000 training timesteps, decreasing."""


def stage_schedule(
    config: SchedulerConfig, stage: int, num_steps: int, tokens: int, *, amplify: bool = False
) -> StageSchedule:
    """The schedule of a stage (0 is the coarsest) for `num_steps` steps (twice as many with `amplify`).

    tokens: noisy tokens that set the dynamic shift; the reference takes those of the stage before (stage 0: its own).
    """
    count = num_steps * 2 if amplify else num_steps
    bounds = _stages(config)[stage]
    last_sigma = np.linspace(0.999, 0.0, config.num_train_timesteps + 1)[-2]
    sigmas = np.linspace(0.999, last_sigma, count + 1)[:-1]
    timesteps = np.linspace(*bounds.timesteps, count + 1)[:-1]
    if config.use_dynamic_shifting:
        sigmas = _time_shift(config, tokens, sigmas)
        high, low = bounds.timesteps
        timesteps = low + sigmas * (high - low)
    signal = 1.0 - bounds.start_sigma
    alpha = 1.0 / (math.sqrt(1.0 + 1.0 / config.gamma) * (1.0 - signal) + signal)
    beta = alpha * (1.0 - signal) / math.sqrt(config.gamma)
    return StageSchedule(steps=_steps(timesteps, sigmas), alpha=alpha, beta=beta)


def _steps(timesteps: FloatArray, sigmas: FloatArray) -> tuple[Step, ...]:
    """The model sees truncated timesteps, and the reference looks sigmas up by the nearest untruncated one."""
    integers = [int(t) for t in timesteps]
    looked_up = [float(sigmas[np.argmin(np.abs(timesteps - t))]) for t in integers]
    return tuple(
        Step(timestep=t, sigma=sigma, next_sigma=following)
        for t, sigma, following in zip(integers, looked_up, [*looked_up[1:], 0.0], strict=True)
    )


def _stages(config: SchedulerConfig) -> list[_Stage]:
    total = config.num_train_timesteps
    noise = 1.0 - np.linspace(1.0, 1.0 / total, total + 1)
    sigmas = np.flip(config.shift * noise / (1.0 + (config.shift - 1.0) * noise))[:-1]
    starts: list[float] = []
    lengths: list[float] = []
    for stage in range(config.stages):
        first = max(int(config.stage_range[stage] * total), 0)
        last = min(int(config.stage_range[stage + 1] * total), total)
        start_sigma, end_sigma = float(sigmas[first]), float(sigmas[last]) if last < total else 0.0
        starts.append(start_sigma)
        if stage > 0:  # noise added after upsampling raises the level the stage starts from
            signal = 1.0 - start_sigma
            start_sigma = 1.0 - signal / (math.sqrt(1.0 + 1.0 / config.gamma) * (1.0 - signal) + signal)
        lengths.append(start_sigma - end_sigma)
    timesteps = sigmas * total
    stages = []
    for stage, start_sigma in enumerate(starts):
        begin = sum(lengths[:stage]) / sum(lengths)
        end: float = sum(lengths[: stage + 1]) / sum(lengths) if stage < config.stages - 1 else 0.9999999999999999
        high = min(float(timesteps[int(begin * total)]), 999.0)
        low = float(timesteps[min(int(end * total), total - 1)])
        grid = np.linspace(high, low, total + 1)
        stages.append(_Stage(start_sigma=start_sigma, timesteps=(float(grid[0]), float(grid[-2]))))
    return stages


def _time_shift(config: SchedulerConfig, tokens: int, sigmas: FloatArray) -> FloatArray:
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    mu = tokens * slope + (config.base_shift - slope * config.base_image_seq_len)
    strength = math.exp(mu) if config.time_shift_type == "exponential" else mu
    shifted: FloatArray = strength / (strength + (1.0 / sigmas - 1.0))
    return shifted


def denoise_step(latents: torch.Tensor, velocity: torch.Tensor, start: torch.Tensor, step: Step) -> torch.Tensor:
    """x0 from the predicted velocity, re-noised with the stage's own start to the next noise level (float32)."""
    x0 = torch.sub(latents, velocity.float(), alpha=step.sigma)
    return torch.lerp(x0, start, step.next_sigma) if step.next_sigma else x0
