"""Refusals as HTTP has them: a status, and a body in the envelope that OpenAI's clients read."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from helios_services.gateway.guard.refusal import Code, Refusal

STATUS: Mapping[Code, int] = {
    Code.CANCELLED: 409,  # what is asked for was cancelled
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 408,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 409,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 410,  # a chunk that is no longer kept
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}
TOO_LARGE = 413
"""The status for what is too large by itself. Nobody else uses the limit up, so coming back would not help."""
TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


def status_of(refusal: Refusal) -> int:
    """The HTTP status."""
    if refusal.code is Code.RESOURCE_EXHAUSTED and not refusal.quota:
        return TOO_LARGE
    return STATUS[refusal.code]


def envelope(refusal: Refusal) -> dict[str, Any]:
    """`error`: message, type, param (the first field that is wrong), code.

    Ours are: fields (every one that is wrong), quota, retry_after_s and reason.
    """
    status = status_of(refusal)
    error: dict[str, Any] = {
        "message": refusal.message,
        "type": TYPES.get(status, "invalid_request_error"),
        "param": refusal.violations[0].field if refusal.violations else None,
        "code": refusal.code.name.lower(),
    }
    if refusal.violations:
        error["fields"] = [
            {"field": wrong.field, "value": wrong.value, "allowed": wrong.allowed} for wrong in refusal.violations
        ]
    if refusal.quota:
        error["quota"] = refusal.quota
    if refusal.retry_after_s is not None:
        error["retry_after_s"] = refusal.retry_after_s
    if refusal.reason:
        error["reason"] = refusal.reason
    return {"error": error}


def refused(refusal: Refusal) -> JSONResponse:
    """The answer to a call that is refused."""
    headers = {"Cache-Control": "no-store"}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(refusal.retry_after_s)))
    if refusal.code is Code.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(envelope(refusal), status_of(refusal), headers)
