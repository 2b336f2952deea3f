"""Around every call of the API: callers are known, errors become statuses, calls are counted and timed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4

import grpc
import structlog

from helios_services.gateway.grpc.requests import checked, each_checked, tolerant
from helios_services.gateway.guard.keys import KeyRing, caller
from helios_services.gateway.guard.refusal import Refusal, refusal_of
from helios_services.gateway.metrics import GatewayMetrics
from helios_services.telemetry.tracing import failed, incoming, span

log = structlog.get_logger(__name__)
PREFIX = "/helios.v1."
if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps unary and server-streaming handlers of the helios.v1 services."""

    def __init__(self, metrics: GatewayMetrics, keys: KeyRing) -> None:
        self._metrics, self._keys = metrics, keys

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Called by grpc once per call."""
        handler = await continuation(handler_call_details)
        path = handler_call_details.method
        if handler is None or not path.startswith(PREFIX):
            return handler
        method = path.rpartition("/")[2]
        options = {
            "request_deserializer": tolerant(handler.request_deserializer),
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            inner = handler.stream_stream or handler.unary_stream
            return make(self._stream(method, _checking(handler, inner)), **options)
        make = (
            grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        )
        return make(self._unary(method, _checking(handler, handler.stream_unary or handler.unary_unary)), **options)

    def _unary(self, method: str, inner: Any) -> Any:
        async def handle(request: Any, context: Context) -> Any:
            metadata = context.invocation_metadata() or ()
            with self._metrics.call(method) as outcome, span(method, incoming(metadata)) as traced:
                try:
                    caller.set(self._keys.authenticate(method, metadata))
                    response = await inner(request, context)
                except Exception as error:
                    refusal = _refusal(method, error)
                    outcome.code = refusal.code.name
                    failed(traced, refusal.code.name)
                    await _abort(context, refusal)
                outcome.code = grpc.StatusCode.OK.name
                return response

        return handle

    def _stream(self, method: str, inner: Any) -> Any:
        async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
            metadata = context.invocation_metadata() or ()
            with self._metrics.call(method) as outcome, span(method, incoming(metadata)) as traced:
                try:
                    caller.set(self._keys.authenticate(method, metadata))
                    async for response in inner(request, context):
                        yield response
                except Exception as error:
                    refusal = _refusal(method, error)
                    outcome.code = refusal.code.name
                    failed(traced, refusal.code.name)
                    await _abort(context, refusal)
                outcome.code = grpc.StatusCode.OK.name

        return handle


def _checking(handler: Handler, inner: Any) -> Any:
    """The handler behind the checks of what comes off the wire."""
    check = each_checked if handler.request_streaming else checked
    return lambda request, context: inner(check(request), context)


def _refusal(method: str, error: Exception) -> Refusal:
    refusal = refusal_of(error)
    if refusal is None:
        error_id = uuid4().hex[:12]
        log.error("call_failed", method=method, error_id=error_id, exc_info=error)
        return Refusal(grpc.StatusCode.INTERNAL, f"internal error {error_id}")
    log.debug("call_refused", method=method, code=refusal.code.name)
    return refusal


async def _abort(context: Context, refusal: Refusal) -> NoReturn:
    await context.abort(refusal.code, refusal.message, refusal.trailing_metadata())
    raise AssertionError("abort does not return")
