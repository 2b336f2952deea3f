"""What the parts of one attempt at a job share."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from helios_services.config import ServiceConfig
from helios_services.deployments.dispatch.endings import JobFailed
from helios_services.deployments.dispatch.stage_calls import Retry, StageCalls
from helios_services.deployments.dispatch.stages import Stages
from helios_services.jobs.errors import QuotaExceeded, StoreUnavailable
from helios_services.jobs.records import Claim, Job, Lease
from helios_services.jobs.store import JobStore
from helios_services.media.artifacts import ArtifactStore
from helios_services.telemetry.metrics import WorkerMetrics

Value = TypeVar("Value")
AGAIN = Retry(tries=None)
"""How the store and the artifact store are called again."""


@dataclass(kw_only=True)
class Attempt:
    """A claimed job and what it is made with. stopping: the job is to be released after the chunk in progress."""

    claim: Claim
    stages: Stages
    store: JobStore
    artifacts: ArtifactStore
    metrics: WorkerMetrics
    config: ServiceConfig
    stopping: bool = False
    calls: StageCalls = field(init=False)
    log: Any = field(init=False)

    def __post_init__(self) -> None:
        self.calls = StageCalls(self.stages, config=self.config, metrics=self.metrics, stopping=lambda: self.stopping)
        self.log = structlog.get_logger(__name__).bind(job_id=self.job.id)

    @property
    def job(self) -> Job:
        """The job as it was claimed."""
        return self.claim.job

    @property
    def lease(self) -> Lease:
        """The right to it."""
        return self.claim.lease

    async def durably(self, call: Callable[[], Awaitable[Value]]) -> Value:
        """Makes a call of the store, again for as long as Redis cannot be reached. Every such call may be repeated.

        Raises JobFailed when the account's jobs have made as much as they may.
        """
        attempt = 0
        while True:
            try:
                return await call()
            except QuotaExceeded as error:
                raise JobFailed("OUTPUT_LIMIT", str(error)) from None
            except StoreUnavailable as error:
                attempt += 1
                if attempt == 1:
                    self.log.warning("redis_unreachable", error=str(error))
                await asyncio.sleep(AGAIN.wait_s(attempt))
