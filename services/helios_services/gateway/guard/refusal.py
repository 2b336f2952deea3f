"""Why a call is refused, in terms that every door can say: a canonical code, a message, and details."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from helios_engine.errors import InvalidField, shorten
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

RETRY_AFTER_S = 2.0
MAX_TEXT_BYTES = 2000
"""The longest message. gRPC sends message and details as metadata, twice and in base64, and clients take 8 KiB of
metadata. HTTP has room for as much."""


class Code(Enum):
    """The canonical codes of google.rpc.Code that calls end with; values are its numbers."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A field that is wrong: its name, its value as it was given, what is allowed, and all of that for people."""

    field: str
    description: str
    value: str
    allowed: str


class Refusal(Exception):
    """Ends a call. message: cut to what clients take.

    violations: the fields that are wrong. quota: the name of the limit that is used up. retry_after_s: when to come
    back (None: nobody knows). reason: why a job has ended without its video, where its stream ends for that.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        quota: str = "",
        retry_after_s: float | None = None,
        reason: str = "",
    ) -> None:
        message = cut(message)
        super().__init__(message)
        self.code, self.message = code, message
        self.violations, self.quota, self.retry_after_s, self.reason = violations, quota, retry_after_s, reason


def cut(text: str) -> str:
    """The text as far as it fits into MAX_TEXT_BYTES."""
    text = text[:MAX_TEXT_BYTES]
    while travel_bytes(text) > MAX_TEXT_BYTES:
        text = text[: len(text) * 3 // 4]
    return text


def travel_bytes(text: str) -> int:
    """Bytes of a message on the wire: what is not printable ASCII is percent-encoded."""
    return sum(1 if 0x20 <= byte <= 0x7E and byte != 0x25 else 3 for byte in text.encode())


def bad_request(problems: Sequence[InvalidField]) -> Refusal:
    """INVALID_ARGUMENT naming every field, its value and what is allowed; of very many problems, the first."""
    texts: list[str] = []
    violations: list[Violation] = []
    left = MAX_TEXT_BYTES - 32
    for problem in problems:
        text = cut(str(problem))
        left -= travel_bytes(text) + 2
        if texts and left < 0:
            texts.append(f"and {len(problems) - len(texts):,} more problems")
            break
        texts.append(text)
        allowed = cut(problem.allowed)
        violations.append(
            Violation(field=cut(problem.field)[:200], description=text, value=shorten(problem.value), allowed=allowed)
        )
    return Refusal(Code.INVALID_ARGUMENT, "; ".join(texts), violations=violations)


def refusal_of(error: Exception) -> Refusal | None:
    """The refusal that an expected error stands for; None for an unexpected one."""
    match error:
        case Refusal():
            return error
        case InvalidField():
            return bad_request([error])
        case JobTooLarge():
            problem = InvalidField("params", f"{error.size_bytes:,} bytes", f"at most {error.limit_bytes:,} bytes")
            return bad_request([problem])
        case JobNotFound() | MediaNotFound():
            return Refusal(Code.NOT_FOUND, str(error))
        case ChunkGone():
            return Refusal(Code.OUT_OF_RANGE, str(error))
        case IdempotencyConflict():
            return Refusal(Code.ALREADY_EXISTS, str(error))
        case InvalidTransition() | NoChunkLeft() | NotContinuable() | NotDeadLettered() | SessionEnded():
            return Refusal(Code.FAILED_PRECONDITION, str(error))
        case PromptsFull():
            return Refusal(Code.RESOURCE_EXHAUSTED, str(error), quota="prompt_updates")
        case QueueFull():
            subject = error.limit if isinstance(error, QuotaExceeded) else "queue"
            quota = "uploads" if isinstance(error, MediaFull) else subject
            return Refusal(Code.RESOURCE_EXHAUSTED, str(error), quota=quota, retry_after_s=error.retry_after_s)
        case StoreUnavailable():
            return Refusal(Code.UNAVAILABLE, "the job store cannot be reached", retry_after_s=RETRY_AFTER_S)
    return None
