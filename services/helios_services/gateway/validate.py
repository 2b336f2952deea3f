"""Requests to job specifications: defaults filled in, every field checked, all problems reported at once."""

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

import grpc

from helios.v1 import video_generation_pb2 as pb
from helios_engine.errors import InvalidField
from helios_engine.request import FIELDS, MAX_SEED, GenerationRequest
from helios_services.config import ModelConfig
from helios_services.gateway.convert import PRIORITIES
from helios_services.gateway.refusal import Refusal, bad_request
from helios_services.jobs.records import JobSpec, Priority

MAX_IDEMPOTENCY_KEY, MAX_LABELS, MAX_LABEL_KEY, MAX_LABEL_VALUE = 128, 16, 64, 256
LATER = ("image_id", "video_id", "continue_from", "prompt_schedule")
UNUSED = ("negative_prompt", "num_inference_steps")


def job_spec(request: pb.SubmitJobRequest, model: ModelConfig) -> JobSpec:
    """Raises Refusal: INVALID_ARGUMENT, NOT_FOUND for an unknown model, UNIMPLEMENTED for what does not exist yet."""
    if request.model not in ("", model.name):
        raise Refusal(
            grpc.StatusCode.NOT_FOUND, f"model: {request.model[:64]!r} does not exist; allowed: {model.name!r}"
        )
    for name in LATER:
        if getattr(request.params, name):
            raise Refusal(grpc.StatusCode.UNIMPLEMENTED, f"params.{name}: is not supported by this server")
    problems: list[InvalidField] = []
    generation = _generation(request.params, model, request.idempotency_key, problems)
    priority = _priority(request.priority, problems)
    labels = _labels(request.labels, problems)
    _length("idempotency_key", request.idempotency_key, MAX_IDEMPOTENCY_KEY, problems)
    if problems or generation is None:
        raise bad_request(problems)
    return JobSpec(
        model=model.name,
        params=generation.to_dict(),
        chunks_total=generation.num_chunks,
        priority=priority,
        labels=labels,
    )


def _generation(
    params: pb.GenerationParams, model: ModelConfig, idempotency_key: str, problems: list[InvalidField]
) -> GenerationRequest | None:
    given = {field.name: value for field, value in params.ListFields() if field.name in FIELDS}
    if "pyramid_steps" in given:
        given["pyramid_steps"] = tuple(given["pyramid_steps"])
    given.setdefault("prompt", "")
    problems += [
        InvalidField(f"params.{name}", getattr(params, name), "nothing: step-distilled models do not use it")
        for name in UNUSED
        if (params.HasField(name) if name == "num_inference_steps" else getattr(params, name))  # type: ignore[arg-type]
    ]
    valid = {name: value for name, value in given.items() if _try(name, value, problems)}
    if len(valid) < len(given):
        return None
    request = GenerationRequest(**{"seed": _seed(idempotency_key)} | valid)
    pixels = request.height * request.width
    if request.num_frames > model.max_frames:
        problems.append(
            InvalidField("params.num_frames", request.num_frames, f"an integer from 1 to {model.max_frames}")
        )
    if pixels > model.max_pixels:
        size = f"{request.height}x{request.width}"
        problems.append(InvalidField("params.height", size, f"at most {model.max_pixels:,} pixels (height x width)"))
    return request


def _seed(idempotency_key: str) -> int:
    """A seed for a request without one: random, but the same for repetitions under one key."""
    if not idempotency_key:
        return secrets.randbelow(MAX_SEED)
    return int.from_bytes(hashlib.sha256(idempotency_key.encode()).digest()[:8], "big") & MAX_SEED


def _try(name: str, value: Any, problems: list[InvalidField]) -> bool:
    """Whether the field alone is valid; a problem is added if not."""
    try:
        GenerationRequest(**{"prompt": "valid", name: value})
    except InvalidField as error:
        problems.append(InvalidField(f"params.{error.field}", error.value, error.allowed))
        return False
    return True


def _priority(value: int, problems: list[InvalidField]) -> Priority:
    if value not in PRIORITIES:
        problems.append(InvalidField("priority", value, ", ".join(pb.Priority.keys())))
        return Priority.NORMAL
    return PRIORITIES[value]


def _labels(labels: Mapping[str, str], problems: list[InvalidField]) -> dict[str, str]:
    if len(labels) > MAX_LABELS:
        problems.append(InvalidField("labels", f"{len(labels)} labels", f"at most {MAX_LABELS} labels"))
    for key, value in labels.items():
        _length("labels key", key, MAX_LABEL_KEY, problems)
        _length(f"labels[{key[:MAX_LABEL_KEY]}]", value, MAX_LABEL_VALUE, problems)
    return dict(labels)


def _length(name: str, value: str, limit: int, problems: list[InvalidField]) -> None:
    if len(value) > limit:
        problems.append(InvalidField(name, value, f"at most {limit} characters (this one has {len(value):,})"))
