"""Counts the work and puts it on the board, as long as the dispatcher runs."""

import asyncio

import structlog
from ray.exceptions import RayError

from helios_services.config import ServiceConfig
from helios_services.deployments.autoscaling.board import publish
from helios_services.deployments.autoscaling.need import STAGES
from helios_services.jobs.connector import Connector
from helios_services.jobs.errors import StoreUnavailable
from helios_services.jobs.work import Pace
from helios_services.tasks import cancelled
from helios_services.telemetry.metrics import WorkerMetrics

log = structlog.get_logger(__name__)
PERIOD_S = 1.0


class WorkMeter:
    """One per dispatcher replica. Needs a running event loop."""

    def __init__(self, config: ServiceConfig, metrics: WorkerMetrics, app: str) -> None:
        self._model, self._metrics, self._app = config.model.name, metrics, app
        self._store = Connector(config.redis, config.jobs).store()
        self._seen: dict[str, tuple[float, float]] = {}
        self._task = asyncio.create_task(self._run(), name="work-meter")

    def check(self) -> None:
        """Raises what ended the counting, if something did."""
        if self._task.done():
            self._task.result()

    async def close(self) -> None:
        """Stops counting."""
        await cancelled(self._task)
        await self._store.close()

    async def _run(self) -> None:
        reachable = True
        while True:
            try:
                work = await self._store.work(self._model, self._measured())
                self._metrics.record_work(work)
                await asyncio.to_thread(publish, self._app, work)
                reachable = True
            except (StoreUnavailable, RayError, OSError) as error:  # nothing is put up, and numbers stay as they are
                if reachable:
                    log.warning("work_not_reported", error=str(error))
                reachable = False
            await asyncio.sleep(PERIOD_S)

    def _measured(self) -> list[Pace]:
        """Chunks that this dispatcher has finished since the last look, by stage."""
        measured = []
        for stage in (name for names in STAGES.values() for name in names):
            count, total = self._metrics.stage_totals(stage)
            seen_count, seen_total = self._seen.get(stage, (0.0, 0.0))
            self._seen[stage] = count, total
            if count > seen_count:
                seconds = (total - seen_total) / (count - seen_count)
                measured.append(Pace(stage=stage, chunks=int(count - seen_count), seconds=seconds))
        return measured
