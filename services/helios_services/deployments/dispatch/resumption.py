"""Where a job goes on: after its last chunk, or after the last chunk of the job that it continues."""

from helios_engine.errors import InvalidField
from helios_engine.request import GenerationRequest
from helios_engine.sampling.state import DenoiseState
from helios_services.deployments.dispatch.endings import JobFailed
from helios_services.jobs.records import Claim, Job


def stored_request(job: Job) -> GenerationRequest:
    """What the job asks for. Raises JobFailed for a request that this version does not take."""
    try:
        return GenerationRequest.from_dict(job.spec.params)
    except (InvalidField, TypeError, KeyError) as error:  # stored by a gateway of another version
        raise JobFailed("INVALID_REQUEST", str(error)) from None


def saved_state(claim: Claim, request: GenerationRequest) -> DenoiseState | None:
    """The state that the store has for the job; None if it starts at its beginning.

    Raises JobFailed for a state that cannot be used, or that should be there and is not.
    """
    job = claim.job
    try:
        state = None if claim.checkpoint is None else DenoiseState.from_bytes(claim.checkpoint)
        if state is not None and not job.chunks_done:  # the other job's
            state = state.continued(request)
    except ValueError as error:  # stored by a worker of another version, or of a video that this one cannot continue
        raise JobFailed("INVALID_REQUEST", str(error)) from None
    if state is None and job.spec.continue_from:
        raise JobFailed("NOT_CONTINUABLE", f"the state of job {job.spec.continue_from!r} is not kept")
    return state
