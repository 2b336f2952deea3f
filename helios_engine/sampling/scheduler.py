"""Noise schedules: which timesteps the model sees and at which noise levels, for each pyramid stage of a chunk.

Sources: `HeliosDMDScheduler` and `HeliosScheduler` (diffusers). Everything here is a handful of float64 scalars per
pyramid stage, computed on the host before the first step, so that sampling never waits for the device.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from helios_engine.configs import SchedulerConfig, SolverConfig

FloatArray = NDArray[np.float64]
FIRST_SIGMA = 0.999


@dataclass(frozen=True, kw_only=True)
class StageSchedule:
    """The steps of one pyramid stage. sigmas has one entry more than timesteps: the last is 0, the clean latents.

    alpha, beta: mix the upsampled latents with block noise at the stage's start (pyramids only).
    """

    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]
    alpha: float = 1.0
    beta: float = 0.0


@dataclass(frozen=True, kw_only=True)
class _Stage:
    start_sigma: float
    """Noise level at the stage's start before correction for the upsampling."""
    timesteps: tuple[float, float]
    """First and last of the stage's 1000 training timesteps, decreasing."""


def stage_schedule(
    config: SchedulerConfig,
    stage: int,
    num_steps: int,
    tokens: int,
    *,
    amplify: bool = False,
    shift: float | None = None,
) -> StageSchedule:
    """The schedule of a pyramid stage (0 is the coarsest) for `num_steps` steps (twice as many with `amplify`).

    tokens: noisy tokens that set the dynamic shift; the reference takes those of the stage before (stage 0: its own).
    shift: strength of the time shift instead of the configured one.
    """
    count = num_steps * 2 if amplify else num_steps
    bounds = _stages(config)[stage]
    last_sigma = np.linspace(FIRST_SIGMA, 0.0, config.num_train_timesteps + 1)[-2]
    distilled = not isinstance(config, SolverConfig)
    # a distilled model's last point is the clean latents; the solvers step on the last training timestep, then to 0
    points = slice(None, -1) if distilled else slice(None)
    sigmas = np.linspace(FIRST_SIGMA, last_sigma, count + distilled)[points]
    timesteps = np.linspace(*bounds.timesteps, count + distilled)[points]
    strength = _strength(config, tokens, shift)
    if strength is not None:
        sigmas = _time_shift(strength, sigmas)
        high, low = bounds.timesteps
        timesteps = low + sigmas * (high - low)
    integers = [int(t) for t in timesteps]  # what the reference gives to the model
    if distilled:  # the reference looks sigmas up by the nearest untruncated timestep
        sigmas = np.array([sigmas[np.argmin(np.abs(timesteps - t))] for t in integers])
    signal = 1.0 - bounds.start_sigma
    alpha = 1.0 / (math.sqrt(1.0 + 1.0 / config.gamma) * (1.0 - signal) + signal)
    beta = alpha * (1.0 - signal) / math.sqrt(config.gamma)
    return StageSchedule(timesteps=tuple(integers), sigmas=(*map(float, sigmas), 0.0), alpha=alpha, beta=beta)


def single_schedule(
    config: SchedulerConfig, num_steps: int, tokens: int, *, shift: float | None = None
) -> StageSchedule:
    """The schedule of a single-stage model. tokens: noisy tokens, which set the dynamic shift."""
    sigmas = np.linspace(FIRST_SIGMA, 0.0, num_steps + 1)[:-1]
    strength = _strength(config, tokens, shift)
    if strength is not None:
        sigmas = _time_shift(strength, sigmas)
    timesteps = sigmas * config.num_train_timesteps
    return StageSchedule(timesteps=tuple(map(float, timesteps)), sigmas=(*map(float, sigmas), 0.0))


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


def _strength(config: SchedulerConfig, tokens: int, shift: float | None) -> float | None:
    if shift is not None or not config.use_dynamic_shifting:
        return shift
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    mu = tokens * slope + (config.base_shift - slope * config.base_image_seq_len)
    return math.exp(mu) if config.time_shift_type == "exponential" else mu


def _time_shift(strength: float, sigmas: FloatArray) -> FloatArray:
    shifted: FloatArray = strength / (strength + (1.0 / sigmas - 1.0))
    return shifted
