"""Drives one claimed job to its end: chunks, publication, or why not. Knows the stages and the store, not Ray."""

import contextlib
import time

from helios_services.config import ServiceConfig
from helios_services.deployments.dispatch.attempt import Attempt
from helios_services.deployments.dispatch.delivery import Delivery
from helios_services.deployments.dispatch.endings import JobFailed, NothingWanted, Released, SetAside
from helios_services.deployments.dispatch.generation import Generation
from helios_services.deployments.dispatch.publication import Publication
from helios_services.deployments.dispatch.resumption import stored_request
from helios_services.deployments.dispatch.stages import Stages
from helios_services.deployments.dispatch.turns import Expired
from helios_services.jobs.errors import InvalidTransition, JobNotFound, LeaseLost
from helios_services.jobs.records import Claim, JobFailure
from helios_services.jobs.store import JobStore
from helios_services.media.artifacts import ArtifactStore
from helios_services.telemetry import tracing
from helios_services.telemetry.metrics import WorkerMetrics


class JobRun:
    """One attempt at one job. Everything it needs to go on elsewhere is in the store after each chunk."""

    def __init__(
        self,
        claim: Claim,
        *,
        stages: Stages,
        store: JobStore,
        artifacts: ArtifactStore,
        metrics: WorkerMetrics,
        config: ServiceConfig,
    ) -> None:
        self._attempt = Attempt(
            claim=claim, stages=stages, store=store, artifacts=artifacts, metrics=metrics, config=config
        )
        self._job, self._lease, self._store = claim.job, claim.lease, store
        self._delivery = Delivery(self._attempt)

    @property
    def last_progress(self) -> float:
        """When the last chunk was appended, or the attempt started (time.perf_counter())."""
        return self._delivery.last_chunk_at

    def stop_after_chunk(self) -> None:
        """Releases the job after the chunk in progress."""
        self._attempt.stopping = True

    async def run(self) -> None:
        """Runs until the job has ended, has been released, or belongs to someone else."""
        context, waited_s = tracing.remote(self._job.trace), self._attempt.claim.queue_wait_s
        tracing.start("queue", context, start_s=time.time() - waited_s, job_id=self._job.id).end()
        with tracing.span("job", context, job_id=self._job.id, attempt=self._job.attempts):
            await self._run()

    async def _run(self) -> None:
        log = self._attempt.log
        log.info("job_started", attempt=self._job.attempts, first_chunk=self._job.chunks_done)
        self._attempt.metrics.queue_wait.observe(self._attempt.claim.queue_wait_s)
        try:
            chunks = await Generation(self._attempt, stored_request(self._job), self._delivery).run()
            if chunks is None:
                await self._release()
            else:
                with tracing.span("publish"):
                    await Publication(self._attempt, chunks).run()
        except Released:
            await self._release()
        except SetAside:
            log.info("job_set_aside")
        except NothingWanted:
            await self._cancel()
        except Expired:
            await self._attempt.durably(self._store.sweep)  # which ends the job
        except LeaseLost:
            log.info("job_taken_away")
        except JobFailed as error:
            await self._fail(error.failure)

    async def _release(self) -> None:
        with contextlib.suppress(LeaseLost):
            await self._attempt.durably(lambda: self._store.release(self._lease))
            self._attempt.log.info("job_released")

    async def _cancel(self) -> None:
        with contextlib.suppress(JobNotFound, InvalidTransition):
            await self._attempt.durably(lambda: self._store.cancel(self._job.id))
            self._attempt.log.info("job_abandoned")

    async def _fail(self, failure: JobFailure) -> None:
        self._attempt.log.error("job_failed", reason=failure.reason, message=failure.message)
        with contextlib.suppress(LeaseLost):
            await self._attempt.durably(lambda: self._store.fail(self._lease, failure))
