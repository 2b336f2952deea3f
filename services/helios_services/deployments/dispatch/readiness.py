"""Whether a dispatcher may take jobs: only while somebody could make their chunks.

Otherwise the dispatchers of a cluster that is still loading its weights, or that never comes up, would take jobs that
another cluster at the same queue could make at once.
"""

import asyncio

import structlog

from helios_services.config import ServiceConfig
from helios_services.deployments.dispatch.stage_calls import SECTION
from helios_services.deployments.dispatch.stages import Stages
from helios_services.telemetry.metrics import WorkerMetrics

log = structlog.get_logger(__name__)
PERIOD_S = 1.0


def needed_stages(config: ServiceConfig) -> frozenset[str]:
    """Stages that always have a replica when all is well. One that may scale to zero is started for the jobs."""
    return frozenset(stage for stage, section in SECTION.items() if getattr(config, section).autoscaling.least > 0)


class Readiness:
    """Looks at the stages again and again. While they cannot be looked at, what was seen last holds."""

    def __init__(self, stages: Stages, config: ServiceConfig, metrics: WorkerMetrics) -> None:
        self._stages, self._needed, self._metrics = stages, needed_stages(config), metrics
        self._ready = asyncio.Event()
        self._missing: frozenset[str] | None = None

    async def wait(self) -> None:
        """Until every needed stage has a replica; returns at once if so."""
        await self._ready.wait()

    async def watch(self) -> None:
        """Looks until cancelled."""
        while True:
            absent = await self._stages.absent() if self._needed else frozenset()
            if absent is not None:
                self._note(absent & self._needed)
            await asyncio.sleep(PERIOD_S)

    def _note(self, missing: frozenset[str]) -> None:
        if missing == self._missing:
            return
        if missing:
            log.warning("waiting_for_stages", stages=sorted(missing))
            self._ready.clear()
        else:
            log.info("stages_ready")
            self._ready.set()
        self._metrics.ready.set(not missing)
        self._missing = missing
