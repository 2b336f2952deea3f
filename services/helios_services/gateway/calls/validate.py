"""Requests to job specifications: defaults filled in, every field checked, all problems reported at once."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration

from helios.v1 import video_generation_pb2 as pb
from helios_engine.errors import InvalidField
from helios_engine.prompts import DEFAULT_INTERPOLATION_CHUNKS, ScheduledPrompt
from helios_engine.request import (
    FIELDS,
    MAX_SEED,
    MEDIA,
    GenerationRequest,
    LoraWeight,
    check_interpolation,
    check_prompt,
)
from helios_engine.variants import make_request
from helios_services.config import ModelConfig
from helios_services.config.places import permitted
from helios_services.gateway.guard.refusal import Code, Refusal, bad_request
from helios_services.jobs.records import Job, JobSpec, Priority
from helios_services.messages import PRIORITIES

MAX_IDEMPOTENCY_KEY, MAX_LABELS, MAX_LABEL_KEY, MAX_LABEL_VALUE = 128, 16, 64, 256
MIN_TIMEOUT_S, MAX_TIMEOUT_S = 1.0, 30 * 86400.0
SOURCES = ("image_id", "video_id", "continue_from")
INHERITED = ("height", "width", "keep_first_frame")
"""What a job has in common with the one that it continues."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A request as it came: its model is known, nothing else has been looked at. tenant: whose it is. parent: the job
    that it continues."""

    request: pb.SubmitJobRequest
    model: ModelConfig
    tenant: str = ""
    parent: Job | None = None
    session: bool = False
    webhook_urls: tuple[str, ...] = ()


def check_model(request: pb.SubmitJobRequest, model: ModelConfig) -> None:
    """Raises Refusal (NOT_FOUND) for an unknown model."""
    if request.model not in ("", model.name):
        raise Refusal(Code.NOT_FOUND, f"model: {request.model[:64]!r} does not exist; allowed: {model.name!r}")


def job_spec(submission: Submission) -> JobSpec:
    """Raises Refusal (INVALID_ARGUMENT) naming every field that is wrong."""
    request, params = submission.request, submission.request.params
    problems: list[InvalidField] = []
    sources = [name for name in SOURCES if getattr(params, name)]
    if len(sources) > 1:
        problems.append(InvalidField(f"params.{sources[1]}", "given", f"only one of {', '.join(SOURCES)}"))
    generation = _generation(submission, problems)
    priority = _priority(request.priority, submission.session, problems)
    labels = _labels(request.labels, problems)
    timeout_s = _timeout("timeout", request.timeout if request.HasField("timeout") else None, problems)
    queue_timeout = request.queue_timeout if request.HasField("queue_timeout") else None
    queue_timeout_s = _timeout("queue_timeout", queue_timeout, problems)
    _webhook(request.webhook_url, submission.webhook_urls, problems)
    _length("idempotency_key", request.idempotency_key, MAX_IDEMPOTENCY_KEY, problems)
    if problems or generation is None:
        raise bad_request(problems)
    return JobSpec(
        model=submission.model.name,
        params=generation.to_dict(),
        chunks_total=0 if params.open_ended else generation.num_chunks,
        priority=priority,
        labels=labels,
        image_id=params.image_id,
        video_id=params.video_id,
        continue_from=params.continue_from,
        session=submission.session,
        tenant=submission.tenant,
        timeout_s=timeout_s,
        queue_timeout_s=queue_timeout_s,
        webhook_url=request.webhook_url,
    )


def prompt_update(prompt: str, chunk_index: int, interpolation_chunks: int | None) -> ScheduledPrompt:
    """A prompt that comes while the job runs. Raises InvalidField."""
    check_prompt("prompt", prompt)
    if chunk_index < 0:
        raise InvalidField("chunk_index", chunk_index, "an integer from 0 on")
    over = DEFAULT_INTERPOLATION_CHUNKS if interpolation_chunks is None else interpolation_chunks
    check_interpolation("interpolation_chunks", over)
    return ScheduledPrompt(chunk_index=chunk_index, prompt=prompt, interpolation_chunks=over)


def _generation(submission: Submission, problems: list[InvalidField]) -> GenerationRequest | None:
    params, model = submission.request.params, submission.model
    given = _given(params)
    if submission.parent is not None:
        inherited = submission.parent.spec.params
        for name in INHERITED:
            if given.setdefault(name, inherited[name]) != inherited[name]:
                allowed = f"{inherited[name]!r}, that of job {submission.parent.id!r}"
                problems.append(InvalidField(f"params.{name}", given[name], allowed))
    if params.open_ended and "num_frames" in given:
        problems.append(InvalidField("params.num_frames", given["num_frames"], "nothing for an open-ended job"))
    idempotency_key = submission.request.idempotency_key
    try:
        request = make_request(model.variant, **{"seed": _seed(idempotency_key)} | given)
    except InvalidField as error:
        valid = [name for name, value in given.items() if _try(name, value, model.variant, problems)]
        if len(valid) == len(given):
            problems.append(InvalidField(f"params.{error.field}", error.value, error.allowed))
        return None
    _limits(request, model, params.open_ended, problems)
    return request


def _given(params: pb.GenerationParams) -> dict[str, Any]:
    """The fields that are set, as GenerationRequest has them."""
    given: dict[str, Any] = {
        field.name: value for field, value in params.ListFields() if field.name in FIELDS and field.name not in MEDIA
    }
    given.setdefault("prompt", "")
    if "pyramid_steps" in given:
        given["pyramid_steps"] = tuple(given["pyramid_steps"])
    for name in ("image_noise_sigma", "video_noise_sigma"):
        if name in given:
            given[name] = (given[name].min, given[name].max)
    if "prompt_schedule" in given:
        given["prompt_schedule"] = tuple(
            ScheduledPrompt(
                chunk_index=entry.chunk_index,
                prompt=entry.prompt,
                interpolation_chunks=entry.interpolation_chunks
                if entry.HasField("interpolation_chunks")
                else DEFAULT_INTERPOLATION_CHUNKS,
            )
            for entry in given["prompt_schedule"]
        )
    if "loras" in given:
        given["loras"] = tuple(
            LoraWeight(name=entry.name, scale=entry.scale if entry.HasField("scale") else 1.0)
            for entry in given["loras"]
        )
    return given


def _limits(request: GenerationRequest, model: ModelConfig, open_ended: bool, problems: list[InvalidField]) -> None:
    pixels = request.height * request.width
    if request.num_frames > model.max_frames and not open_ended:
        problems.append(
            InvalidField("params.num_frames", request.num_frames, f"an integer from 1 to {model.max_frames}")
        )
    if pixels > model.max_pixels:
        size = f"{request.height}x{request.width}"
        problems.append(InvalidField("params.height", size, f"at most {model.max_pixels:,} pixels (height x width)"))
    for name, steps in (
        ("pyramid_steps", sum(request.pyramid_steps or ())),
        ("num_inference_steps", request.num_inference_steps or 0),
    ):
        if steps > model.max_steps:
            problems.append(InvalidField(f"params.{name}", f"{steps} steps", f"at most {model.max_steps} steps in all"))
    for number, lora in enumerate(request.loras):
        if lora.name not in model.loras:
            allowed = f"an adapter of this model: {', '.join(sorted(model.loras)) or 'it has none'}"
            problems.append(InvalidField(f"params.loras[{number}].name", lora.name, allowed))


def _seed(idempotency_key: str) -> int:
    """A seed for a request without one: random, but the same for repetitions under one key."""
    if not idempotency_key:
        return secrets.randbelow(MAX_SEED)
    return int.from_bytes(hashlib.sha256(idempotency_key.encode()).digest()[:8], "big") & MAX_SEED


def _try(name: str, value: Any, variant: str, problems: list[InvalidField]) -> bool:
    """Whether the field alone is valid; a problem is added if not."""
    try:
        make_request(variant, **{"prompt": "valid", name: value})
    except InvalidField as error:
        problems.append(InvalidField(f"params.{error.field}", error.value, error.allowed))
        return False
    return True


def _timeout(name: str, given: Duration | None, problems: list[InvalidField]) -> float | None:
    if given is None:
        return None
    seconds = given.seconds + given.nanos / 1e9
    if not MIN_TIMEOUT_S <= seconds <= MAX_TIMEOUT_S:
        problems.append(
            InvalidField(name, f"{seconds:g} s", f"{MIN_TIMEOUT_S:.0f} s to {MAX_TIMEOUT_S:.0f} s (30 days)")
        )
    return seconds


def _webhook(url: str, allowed: tuple[str, ...], problems: list[InvalidField]) -> None:
    if url and not permitted(url, allowed):
        places = f"URLs at or below {', '.join(allowed)}" if allowed else "nothing: this service sends no webhooks"
        problems.append(InvalidField("webhook_url", url[:128], places))


def _priority(value: int, session: bool, problems: list[InvalidField]) -> Priority:
    if value not in PRIORITIES:
        problems.append(InvalidField("priority", value, ", ".join(pb.Priority.keys())))
        return Priority.NORMAL
    if session and value == pb.PRIORITY_UNSPECIFIED:
        return Priority.INTERACTIVE
    return PRIORITIES[value]


def _labels(labels: Mapping[str, str], problems: list[InvalidField]) -> dict[str, str]:
    if len(labels) > MAX_LABELS:
        problems.append(InvalidField("labels", f"{len(labels)} labels", f"at most {MAX_LABELS} labels"))
        return {}
    for key, value in labels.items():
        _length("labels key", key, MAX_LABEL_KEY, problems)
        _length(f"labels[{key[:MAX_LABEL_KEY]}]", value, MAX_LABEL_VALUE, problems)
    return dict(labels)


def _length(name: str, value: str, limit: int, problems: list[InvalidField]) -> None:
    if len(value) > limit:
        problems.append(InvalidField(name, value, f"at most {limit} characters (this one has {len(value):,})"))
