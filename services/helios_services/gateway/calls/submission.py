"""Takes jobs in: checks a request against the model, its uploads and the job that it continues."""

from uuid import uuid4

from helios.v1 import video_generation_pb2 as pb
from helios_services.config import ServiceConfig
from helios_services.gateway.calls.access import visible_job
from helios_services.gateway.calls.uploads import Uploads
from helios_services.gateway.calls.validate import Submission, check_model, job_spec
from helios_services.gateway.guard.caller import Call, Caller, Terms
from helios_services.gateway.guard.refusal import Code, Refusal
from helios_services.jobs.records import Job
from helios_services.jobs.state import JobState
from helios_services.jobs.store import JobStore
from helios_services.telemetry.tracing import carried


class Submitter:
    """Queues jobs."""

    def __init__(self, config: ServiceConfig, store: JobStore, uploads: Uploads) -> None:
        self._model, self._webhooks = config.model, config.webhooks
        self._store, self._uploads = store, uploads

    async def submit(
        self, call: Call, request: pb.SubmitJobRequest, *, session: bool = False, within_s: float | None = None
    ) -> Job:
        """Raises Refusal, InvalidField and the store's refusals.

        session: the job lives as long as its client. within_s: what is left of the call, if it waits for the video.
        """
        check_model(request, self._model)
        job_id = uuid4().hex
        if call.caller.terms is not None:
            job_id = _within(call.caller.terms, request, self._model.name) or job_id
        parent = await self._parent(call.caller, request.params.continue_from)
        submission = Submission(
            request=request,
            model=self._model,
            tenant=call.caller.tenant,
            parent=parent,
            session=session,
            webhook_urls=self._webhooks.of(call.caller.tenant).urls,
        )
        spec = job_spec(submission)
        await self._uploads.check(call.caller, spec)
        key = request.idempotency_key
        tenants_key = key and f"{spec.tenant}:{key}"
        return await self._store.submit(
            job_id,
            spec,
            account=call.caller.account,
            idempotency_key=tenants_key,
            trace=carried(),
            within_s=None if request.HasField("timeout") else within_s,
        )

    async def _parent(self, caller: Caller, job_id: str) -> Job | None:
        if not job_id:
            return None
        parent = await visible_job(self._store, caller, job_id)
        refused = Code.FAILED_PRECONDITION
        if parent.spec.model != self._model.name:
            message = f"params.continue_from: job {job_id!r} is of model {parent.spec.model!r}"
            raise Refusal(refused, f"{message}, not {self._model.name!r}")
        if parent.state is not JobState.SUCCEEDED:
            raise Refusal(refused, f"params.continue_from: job {job_id!r} is {parent.state}, not succeeded")
        return parent


def _within(terms: Terms, request: pb.SubmitJobRequest, model: str) -> str:
    """The job's id, where a token starts one only. That start may be repeated: it has a key of its own for that."""
    if terms.models and model not in terms.models:
        raise Refusal(Code.PERMISSION_DENIED, f"model: this token is not for {model!r}")
    if not terms.starts:
        raise Refusal(Code.PERMISSION_DENIED, "this token is for a session that is there, and starts none")
    if terms.job_id:
        request.idempotency_key = f"token:{terms.job_id}"
    return terms.job_id
