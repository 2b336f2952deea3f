"""The dispatcher: claims jobs while it has free slots and drives them."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Coroutine
from typing import Any
from uuid import uuid4

import structlog

from helios_services.config import ServiceConfig
from helios_services.deployments.dispatch.job_run import JobRun
from helios_services.deployments.dispatch.readiness import Readiness
from helios_services.deployments.dispatch.stages import Stages
from helios_services.jobs.connector import Connector
from helios_services.jobs.errors import LeaseLost, StoreUnavailable
from helios_services.jobs.notify import Watch
from helios_services.jobs.patched import warn_of_old_server
from helios_services.jobs.records import Claim
from helios_services.media.artifacts import ArtifactStore
from helios_services.tasks import cancelled
from helios_services.telemetry.metrics import WorkerMetrics

log = structlog.get_logger(__name__)


class Dispatcher:
    """Runs up to `concurrent_jobs` jobs at a time, and `interactive_jobs` besides; takes none while a stage is missing.

    Needs a running event loop.
    """

    def __init__(self, config: ServiceConfig, stages: Stages) -> None:
        self._config, self._stages = config, stages
        self._worker_id = f"{socket.gethostname()}-{os.getpid()}"
        connector = Connector(config.redis, config.jobs)
        self._store, self._notifier, self._heartbeat = connector.store(), connector.notifier(), connector.heartbeat()
        self._artifacts = ArtifactStore(config.artifacts)
        self.metrics = WorkerMetrics()
        self._runs: dict[JobRun, asyncio.Task[None]] = {}
        self.metrics.watch(lambda: [run.last_progress for run in list(self._runs)])
        self._readiness = Readiness(stages, config, self.metrics)
        self._draining = asyncio.Event()
        self._main = asyncio.create_task(self._work(), name="dispatcher")

    def check(self) -> None:
        """Raises what ended the dispatcher, if something did."""
        if self._main.done() and not self._draining.is_set():
            self._main.result()
            raise RuntimeError("the dispatcher has stopped")

    async def drain(self) -> None:
        """Stops claiming, releases running jobs after their chunk in progress, and closes everything.

        A chunk that takes longer than half the shutdown time is dropped: it will be made again elsewhere.
        """
        self._draining.set()
        for run in self._runs:
            run.stop_after_chunk()
        await asyncio.wait({self._main}, timeout=self._config.dispatcher.graceful_shutdown_timeout_s / 2)
        await cancelled(*self._runs.values())
        await asyncio.gather(self._main, return_exceptions=True)
        self._heartbeat.close()
        await self._notifier.close()
        await self._store.close()

    async def _work(self) -> None:
        await self._notifier.start()
        options = self._config.dispatcher
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._readiness.watch())
            looking = group.create_task(warn_of_old_server(self._config.redis))
            slots = [group.create_task(self._slot()) for _ in range(options.concurrent_jobs)]
            slots += [group.create_task(self._slot(interactive_only=True)) for _ in range(options.interactive_jobs)]
            await asyncio.wait(slots)
            watching.cancel()
            looking.cancel()

    async def _slot(self, *, interactive_only: bool = False) -> None:
        with self._notifier.queue(self._config.model.name) as watch:
            while not self._draining.is_set():
                await self._unless_draining(self._readiness.wait())
                claim = await self._claim(watch, interactive_only)
                if claim is not None:
                    await self._drive(claim)

    async def _claim(self, watch: Watch, interactive_only: bool) -> Claim | None:
        """The next job, or None after a while without one."""
        nonce, reachable = uuid4().hex, True
        while not self._draining.is_set():
            try:
                claim = await self._store.claim(
                    self._config.model.name, self._worker_id, nonce, interactive_only=interactive_only
                )
            except StoreUnavailable as error:  # the nonce stays: the claim may have been made and its answer lost
                if reachable:
                    log.warning("redis_unreachable", error=str(error))
                reachable = False
                await asyncio.sleep(self._config.dispatcher.claim_poll_s)
                continue
            if claim is None:
                await self._unless_draining(watch.wait(self._config.dispatcher.claim_poll_s))
            return claim
        return None

    async def _unless_draining(self, event: Coroutine[Any, Any, object]) -> None:
        """Waits for the event, or until the dispatcher is drained."""
        draining = asyncio.ensure_future(self._draining.wait())
        happening = asyncio.ensure_future(event)
        try:
            await asyncio.wait({draining, happening}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            draining.cancel()
            happening.cancel()
            await asyncio.gather(draining, happening, return_exceptions=True)

    async def _drive(self, claim: Claim) -> None:
        self.metrics.starts.labels(claim.job.spec.priority.value).inc()
        run = JobRun(
            claim,
            stages=self._stages,
            store=self._store,
            artifacts=self._artifacts,
            metrics=self.metrics,
            config=self._config,
        )
        task = asyncio.create_task(run.run(), name=f"job-{claim.job.id}")
        loop = asyncio.get_running_loop()

        def on_lost() -> None:
            loop.call_soon_threadsafe(task.cancel)

        self._heartbeat.add(claim.lease, on_lost)
        self._runs[run] = task
        if self._draining.is_set():
            run.stop_after_chunk()
        try:
            await asyncio.wait({task})
            if task.cancelled():  # the lease is lost, or the drain took too long
                with contextlib.suppress(LeaseLost, StoreUnavailable):
                    await self._store.release(claim.lease)
            elif (error := task.exception()) is not None:
                # its lease lapses, and the job is tried again, a bounded number of times
                log.error("job_run_crashed", job_id=claim.job.id, exc_info=error)
        finally:
            del self._runs[run]
            self._heartbeat.remove(claim.lease)
