"""What a failed call raises."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from helios_services.errors import ExpectedError

DETAILS = "grpc-status-details-bin"


class HeliosError(ExpectedError):
    """A call failed.

    Attributes: `code`; `violations` (field to description, of INVALID_ARGUMENT); `retry_after_s` (None: the server did
    not say); `quota` (the limit that is used up, else empty); `reason` (of a failed or cancelled job, else empty).
    """

    def __init__(self, code: grpc.StatusCode, message: str, details: Status | None = None) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code, self.message = code, message
        self.violations: dict[str, str] = {}
        self.retry_after_s: float | None = None
        self.quota = self.reason = ""
        for packed in details.details if details is not None else ():
            bad, retry, quota, info = BadRequest(), RetryInfo(), QuotaFailure(), ErrorInfo()
            if packed.Unpack(bad):
                self.violations = {violation.field: violation.description for violation in bad.field_violations}
            elif packed.Unpack(retry):
                self.retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
            elif packed.Unpack(quota):
                self.quota = quota.violations[0].subject if quota.violations else ""
            elif packed.Unpack(info):
                self.reason = info.reason

    @classmethod
    def of(cls, error: grpc.RpcError) -> "HeliosError":
        """The error of a blocking or an asyncio call."""
        assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
        raw = next((value for key, value in error.trailing_metadata() or () if key == DETAILS), None)
        details = Status.FromString(raw) if isinstance(raw, bytes) else None
        return cls(error.code(), error.details() or "", details)


@contextmanager
def call_errors() -> Iterator[None]:
    """Turns gRPC's errors into HeliosError."""
    try:
        yield
    except grpc.RpcError as error:
        raise HeliosError.of(error) from None
