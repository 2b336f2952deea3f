"""How latents move from one noise level to the next, given the predicted flow velocity v: x0 = x - sigma * v.

Three solvers with one interface. A solver is made for one pyramid stage of one chunk; its coefficients are host-side
scalars.
Sources: `HeliosDMDScheduler.step`, `HeliosScheduler.step_euler` and `step_unipc` (diffusers); UniPC: arXiv 2302.04867.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch

from helios_engine.configs import SchedulerConfig, SolverConfig
from helios_engine.sampling.scheduler import StageSchedule
from helios_kernels.renoise import renoise

SMALLEST_SIGMA = 1e-8


class Solver(Protocol):
    """Takes the steps of one pyramid stage, in order."""

    def step(self, latents: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
        """The latents at the next noise level, float32."""


def make_solver(config: SchedulerConfig, schedule: StageSchedule, start: torch.Tensor) -> Solver:
    """The solver that the model's scheduler names. start: the stage's first latents."""
    if not isinstance(config, SolverConfig):
        return DMDSolver(schedule, start)
    return UniPCSolver(config, schedule) if config.scheduler_type == "unipc" else EulerSolver(schedule)


class DMDSolver:
    """Step-distilled models: x0, re-noised with the stage's own start: x = (1 - next_sigma) x0 + next_sigma start."""

    def __init__(self, schedule: StageSchedule, start: torch.Tensor) -> None:
        self._sigmas, self._start, self._index = schedule.sigmas, start, 0

    def step(self, latents: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
        """See Solver."""
        sigma, following = self._sigmas[self._index : self._index + 2]
        self._index += 1
        return renoise(latents, velocity, self._start, sigma, following)


class EulerSolver:
    """x + (next_sigma - sigma) v."""

    def __init__(self, schedule: StageSchedule) -> None:
        self._sigmas, self._index = schedule.sigmas, 0

    def step(self, latents: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
        """See Solver."""
        sigma, following = self._sigmas[self._index : self._index + 2]
        self._index += 1
        return torch.add(latents, velocity.float(), alpha=following - sigma)


@dataclass(frozen=True, kw_only=True)
class Combination:
    """sample * x + sum over x0s[n] * (the n-th newest prediction of x0)."""

    sample: float
    x0s: tuple[float, ...]

    def __call__(self, sample: torch.Tensor, x0s: list[torch.Tensor]) -> torch.Tensor:
        out = sample * self.sample
        for weight, x0 in zip(self.x0s, x0s, strict=False):
            out.add_(x0, alpha=weight)
        return out


@dataclass(frozen=True, kw_only=True)
class UniPCStep:
    """The corrector refines where the step before arrived (None: it does not); the predictor takes the next step."""

    sigma: float
    corrector: Combination | None
    predictor: Combination


class UniPCSolver:
    """UniPC, predictor and corrector, of up to third order, on x0 predictions."""

    def __init__(self, config: SolverConfig, schedule: StageSchedule) -> None:
        self._steps = unipc_steps(config, schedule.sigmas)
        self._order, self._index = config.solver_order, 0
        self._x0s: list[torch.Tensor] = []  # newest first
        self._left: torch.Tensor | None = None  # the (corrected) latents that the step before started from

    def step(self, latents: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
        """See Solver."""
        step = self._steps[self._index]
        self._index += 1
        self._x0s.insert(0, torch.sub(latents, velocity.float(), alpha=step.sigma))
        if step.corrector is not None:
            assert self._left is not None
            latents = step.corrector(self._left, self._x0s)
        del self._x0s[self._order :]
        self._left = latents
        return step.predictor(latents, self._x0s)


@lru_cache(maxsize=256)
def unipc_steps(config: SolverConfig, sigmas: tuple[float, ...]) -> tuple[UniPCStep, ...]:
    """All steps over `sigmas`, the last of which is the level to arrive at."""
    steps = []
    count, order_before = len(sigmas) - 1, 0
    for index in range(count):
        corrector = None
        if index > 0 and index - 1 not in config.disable_corrector:
            corrector = _corrector(sigmas, index, order_before, config.solver_type)
        order = min(config.solver_order, index + 1)
        if config.lower_order_final:
            order = min(order, count - index)
        predictor = _predictor(sigmas, index, order, config.solver_type)
        steps.append(UniPCStep(sigma=sigmas[index], corrector=corrector, predictor=predictor))
        order_before = order
    return tuple(steps)


def _lambda(sigma: float) -> float:
    """Half the log signal-to-noise ratio."""
    return math.log(1.0 - sigma) - math.log(max(sigma, SMALLEST_SIGMA))


@dataclass(frozen=True, kw_only=True)
class _Interval:
    """From noise level s to t; r: positions of earlier levels relative to s, in units of the interval."""

    sample: float
    x0: float
    scale: float
    r: tuple[float, ...]
    matrix: np.ndarray
    target: np.ndarray


def _interval(sigmas: tuple[float, ...], start: int, order: int, solver_type: str) -> _Interval:
    sigma_s, sigma_t = sigmas[start], sigmas[start + 1]
    lambda_s = _lambda(sigma_s)
    h = _lambda(sigma_t) - lambda_s
    r = tuple((_lambda(sigmas[start - n]) - lambda_s) / h for n in range(1, order))
    phi, rows, target, factorial = math.expm1(-h), [], [], 1
    b_h = -h if solver_type == "bh1" else phi
    phi_k = phi / -h - 1.0
    for k in range(1, order + 1):
        rows.append([position ** (k - 1) for position in (*r, 1.0)])
        target.append(phi_k * factorial / b_h)
        factorial *= k + 1
        phi_k = phi_k / -h - 1.0 / factorial
    alpha_t = 1.0 - sigma_t
    return _Interval(
        sample=max(sigma_t, SMALLEST_SIGMA) / max(sigma_s, SMALLEST_SIGMA),
        x0=-alpha_t * phi,
        scale=-alpha_t * b_h,
        r=r,
        matrix=np.array(rows),
        target=np.array(target),
    )


def _predictor(sigmas: tuple[float, ...], index: int, order: int, solver_type: str) -> Combination:
    part = _interval(sigmas, index, order, solver_type)
    simplified = [0.5] * (order - 1)  # what the authors use up to the second order
    rhos = simplified if order <= 2 else list(np.linalg.solve(part.matrix[:-1, :-1], part.target[:-1]))
    return Combination(sample=part.sample, x0s=tuple(_differences(part, rhos)))


def _corrector(sigmas: tuple[float, ...], index: int, order: int, solver_type: str) -> Combination:
    part = _interval(sigmas, index - 1, order, solver_type)
    *rhos, last = [0.5] if order == 1 else list(np.linalg.solve(part.matrix, part.target))
    weights = _differences(part, rhos)
    weights[0] -= part.scale * last
    return Combination(sample=part.sample, x0s=(part.scale * last, *weights))


def _differences(part: _Interval, rhos: list[float]) -> list[float]:
    """Weights of x0 at s and at earlier levels: divided differences, scaled."""
    weights = [part.x0]
    for rho, r in zip(rhos, part.r, strict=True):
        weights[0] -= part.scale * rho / r
        weights.append(part.scale * rho / r)
    return weights
