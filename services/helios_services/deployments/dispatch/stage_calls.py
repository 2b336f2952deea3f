"""Calls of the stages, repeated according to the class of their errors."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import structlog

from helios_services.config import ServiceConfig
from helios_services.deployments.dispatch.endings import JobFailed, Released
from helios_services.deployments.dispatch.stages import Stages
from helios_services.deployments.dispatch.turns import Expired
from helios_services.telemetry import tracing
from helios_services.telemetry.metrics import WorkerMetrics

log = structlog.get_logger(__name__)
Value = TypeVar("Value")
SECTION = {"text": "text_encoder", "condition": "decoder", "denoise": "denoiser", "decode": "decoder"}
"""The configuration of each stage's deployment."""


class Fault(StrEnum):
    """What an error of a stage means."""

    ABSENT = "absent"
    """No replica runs (scaled to zero, or not up yet), and the call was given up on: nothing was lost."""
    GONE = "gone"
    """The same, for longer than the configuration allows: the job waits elsewhere."""
    BUSY = "busy"
    """No replica took the call."""
    LOST = "lost"
    """The replica died, or did not answer in time: perhaps because of this very call."""
    BROKEN = "broken"
    """The stage failed as machines do: out of memory, a device error."""
    WRONG = "wrong"
    """The stage refused: the same call would fail again."""
    EXPIRED = "expired"
    """The job's deadline had passed before the stage came to it."""


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How a fault is met. tries: of one call, in a row (None: as long as it takes); the waits between them double."""

    tries: int | None
    first_wait_s: float = 0.1
    longest_wait_s: float = 5.0
    reason: str = ""

    def wait_s(self, failures: int) -> float:
        """After so many failures in a row."""
        return min(self.first_wait_s * 2.0 ** min(failures - 1, 10), self.longest_wait_s)


def retries(max_attempts: int) -> dict[Fault, Retry]:
    """The table. max_attempts: `jobs.max_attempts`."""
    return {
        Fault.ABSENT: Retry(tries=None),
        Fault.BUSY: Retry(tries=None),
        Fault.LOST: Retry(tries=max_attempts, reason="WORKER_LOST"),
        Fault.BROKEN: Retry(tries=min(3, max_attempts), first_wait_s=1.0, reason="GENERATION_FAILED"),
        Fault.WRONG: Retry(tries=1, reason="GENERATION_FAILED"),
    }


class StageCalls:
    """The stages as one attempt at a job calls them. stopping: whether the attempt is to end."""

    def __init__(
        self, stages: Stages, *, config: ServiceConfig, metrics: WorkerMetrics, stopping: Callable[[], bool]
    ) -> None:
        self._stages, self._config, self._metrics, self._stopping = stages, config, metrics, stopping
        self._retries = retries(config.jobs.max_attempts)

    async def call(self, name: str, make: Callable[[], Awaitable[Value]]) -> Value:
        """Awaits `make()`, again while that makes sense. Raises JobFailed, Released, Expired."""
        options = getattr(self._config, SECTION[name])
        start_until = time.monotonic() + options.start_timeout_s
        failures: dict[Fault, int] = {}
        while True:
            try:
                with tracing.span(name, attempt=sum(failures.values()) + 1):
                    return await asyncio.wait_for(_as_coroutine(make()), options.request_timeout_s)
            except Exception as error:
                fault = await self._fault(name, error, start_until)
                if fault is Fault.EXPIRED:
                    raise Expired(str(error)) from None
                if fault is Fault.GONE:
                    log.error("stage_gone", stage=name, waited_s=options.start_timeout_s)
                    raise Released from None
                count = failures[fault] = failures.get(fault, 0) + 1
                retry = self._retries[fault]
                if fault in (Fault.BROKEN, Fault.WRONG):
                    log.error("stage_failed", stage=name, fault=fault.value, exc_info=error)
                if retry.tries is not None and count >= retry.tries:
                    raise JobFailed(retry.reason, _message(name, fault, count)) from None
                if self._stopping():
                    raise Released from None
                self._metrics.retries.labels(name).inc()
                log.warning("stage_repeated", stage=name, fault=fault.value, error=type(error).__name__)
                await asyncio.sleep(retry.wait_s(sum(failures.values())))

    async def _fault(self, name: str, error: Exception, start_until: float) -> Fault:
        if isinstance(error, Expired):
            return Fault.EXPIRED
        unavailable, late = self._stages.unavailable(error), time.monotonic() >= start_until
        if isinstance(error, TimeoutError) or (unavailable and late):
            if name in (await self._stages.absent() or ()):
                return Fault.GONE if late else Fault.ABSENT
            return Fault.BUSY if unavailable else Fault.LOST
        if unavailable:
            return Fault.BUSY
        if self._stages.lost(error):
            return Fault.LOST
        return Fault.WRONG if isinstance(error, (ValueError, TypeError, LookupError)) else Fault.BROKEN


def _message(stage: str, fault: Fault, count: int) -> str:
    if fault is Fault.LOST:
        return f"the {stage} stage was lost {count} times in a row"
    return f"the {stage} stage failed" + (f" {count} times in a row" if count > 1 else "")


async def _as_coroutine(awaitable: Awaitable[Value]) -> Value:
    return await awaitable
