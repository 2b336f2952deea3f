"""Refusals as gRPC has them: a status, with google.rpc details in grpc-status-details-bin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn
from typing import Any as Untyped

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from helios_services.gateway.guard.refusal import Refusal

STATUS_KEY = "grpc-status-details-bin"
DOMAIN = "helios.v1"
if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Untyped, Untyped]


async def abort(context: Context, refusal: Refusal) -> NoReturn:
    """Ends a call with what the refusal says."""
    await context.abort(grpc.StatusCode[refusal.code.name], refusal.message, ((STATUS_KEY, _status(refusal)),))
    raise AssertionError("abort does not return")


def _status(refusal: Refusal) -> bytes:
    status = Status(code=refusal.code.value, message=refusal.message)
    for detail in _details(refusal):
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return bytes(status.SerializeToString())


def _details(refusal: Refusal) -> Iterator[Message]:
    if refusal.violations:
        fields = [BadRequest.FieldViolation(field=v.field, description=v.description) for v in refusal.violations]
        yield BadRequest(field_violations=fields)
    if refusal.quota:
        violation = QuotaFailure.Violation(subject=refusal.quota, description=refusal.message)
        yield QuotaFailure(violations=[violation])
    if refusal.retry_after_s is not None:
        delay = Duration()
        delay.FromMilliseconds(int(refusal.retry_after_s * 1000))
        yield RetryInfo(retry_delay=delay)
    if refusal.reason:
        yield ErrorInfo(reason=refusal.reason, domain=DOMAIN)
