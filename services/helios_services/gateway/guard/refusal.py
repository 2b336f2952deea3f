"""Errors as clients see them: a canonical code, a message and google.rpc details."""

from collections.abc import Sequence

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from helios_engine.errors import InvalidField
from helios_services.jobs.errors import (
    ChunkGone,
    IdempotencyConflict,
    InvalidTransition,
    JobNotFound,
    JobTooLarge,
    MediaFull,
    MediaNotFound,
    NoChunkLeft,
    NotContinuable,
    NotDeadLettered,
    PromptsFull,
    QueueFull,
    QuotaExceeded,
    SessionEnded,
    StoreUnavailable,
)

STATUS_KEY = "grpc-status-details-bin"
RETRY_AFTER_S = 2.0
DOMAIN = "helios.v1"


MAX_TEXT_BYTES = 2000
"""Of a message, as it travels. Message and details go into trailing metadata, twice and in base64, of which clients
take 8 KiB."""


class Refusal(Exception):
    """Ends a call with `code`, `message` (cut to what clients take) and google.rpc details."""

    def __init__(self, code: grpc.StatusCode, message: str, *details: Message) -> None:
        message = cut(message)
        super().__init__(message)
        self.code, self.message, self.details = code, message, details

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        """The details in their standard place, grpc-status-details-bin."""
        status = Status(code=self.code.value[0], message=self.message)
        for detail in self.details:
            packed = Any()
            packed.Pack(detail)
            status.details.append(packed)
        return ((STATUS_KEY, status.SerializeToString()),)


def cut(text: str) -> str:
    """The text as far as it fits into MAX_TEXT_BYTES."""
    text = text[:MAX_TEXT_BYTES]
    while travel_bytes(text) > MAX_TEXT_BYTES:
        text = text[: len(text) * 3 // 4]
    return text


def travel_bytes(text: str) -> int:
    """Bytes of a status message on the wire: what is not printable ASCII is percent-encoded."""
    return sum(1 if 0x20 <= byte <= 0x7E and byte != 0x25 else 3 for byte in text.encode())


def bad_request(problems: Sequence[InvalidField]) -> Refusal:
    """INVALID_ARGUMENT naming every field, its value and what is allowed; of very many problems, the first."""
    texts: list[str] = []
    violations: list[BadRequest.FieldViolation] = []
    left = MAX_TEXT_BYTES - 32
    for problem in problems:
        text = cut(str(problem))
        left -= travel_bytes(text) + 2
        if texts and left < 0:
            texts.append(f"and {len(problems) - len(texts):,} more problems")
            break
        texts.append(text)
        violations.append(BadRequest.FieldViolation(field=cut(problem.field)[:200], description=text))
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, "; ".join(texts), BadRequest(field_violations=violations))


def retry_info(seconds: float) -> RetryInfo:
    """When to come back."""
    delay = Duration()
    delay.FromMilliseconds(int(seconds * 1000))
    return RetryInfo(retry_delay=delay)


def failed_job(code: grpc.StatusCode, reason: str, message: str) -> Refusal:
    """A stream ends because its job ended without (all of) its video."""
    return Refusal(code, message, ErrorInfo(reason=reason, domain=DOMAIN))


def _quota(subject: str, error: Exception) -> QuotaFailure:
    return QuotaFailure(violations=[QuotaFailure.Violation(subject=subject, description=str(error))])


def refusal_of(error: Exception) -> Refusal | None:
    """The refusal that an expected error stands for; None for an unexpected one."""
    code = grpc.StatusCode
    match error:
        case Refusal():
            return error
        case InvalidField():
            return bad_request([error])
        case JobTooLarge():
            problem = InvalidField("params", f"{error.size_bytes:,} bytes", f"at most {error.limit_bytes:,} bytes")
            return bad_request([problem])
        case JobNotFound() | MediaNotFound():
            return Refusal(code.NOT_FOUND, str(error))
        case ChunkGone():
            return Refusal(code.OUT_OF_RANGE, str(error))
        case IdempotencyConflict():
            return Refusal(code.ALREADY_EXISTS, str(error))
        case InvalidTransition() | NoChunkLeft() | NotContinuable() | NotDeadLettered() | SessionEnded():
            return Refusal(code.FAILED_PRECONDITION, str(error))
        case PromptsFull():
            return Refusal(code.RESOURCE_EXHAUSTED, str(error), _quota("prompt_updates", error))
        case QueueFull():
            subject = error.limit if isinstance(error, QuotaExceeded) else "queue"
            quota = _quota("uploads" if isinstance(error, MediaFull) else subject, error)
            again = [] if error.retry_after_s is None else [retry_info(error.retry_after_s)]
            return Refusal(code.RESOURCE_EXHAUSTED, str(error), quota, *again)
        case StoreUnavailable():
            return Refusal(code.UNAVAILABLE, "the job store cannot be reached", retry_info(RETRY_AFTER_S))
    return None
