"""Health and reflection, which anybody may call: they hold nothing that callers of the API need."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc

from helios_services.gateway.grpc.handlers import SERVICE
from helios_services.gateway.grpc.requests import only_request, requests, tolerant
from helios_services.gateway.grpc.status import abort
from helios_services.gateway.guard.refusal import Code, Refusal, refusal_of

MOST = 64
"""At a time. One more ends the oldest: silent ones make room for those that ask something."""
MOST_BYTES = 4096
"""The largest request: the name of a service or a symbol. Health keeps a watched name while the call is open."""
if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]


class OpenCalls(grpc.aio.ServerInterceptor):
    """Wraps the handlers of all services but the API, which has a guard."""

    def __init__(self) -> None:
        self._turns: dict[asyncio.Timeout, None] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Called by grpc once per call."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(f"/{SERVICE.full_name}/"):
            return handler
        assert handler.request_deserializer is not None
        options: dict[str, Any] = {
            "request_deserializer": tolerant(handler.request_deserializer, MOST_BYTES),
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            many = handler.stream_stream if handler.request_streaming else handler.unary_stream
            return grpc.stream_stream_rpc_method_handler(self._many(many, handler.request_streaming), **options)
        return grpc.stream_unary_rpc_method_handler(self._one(handler.unary_unary), **options)

    def _one(self, inner: Any) -> Any:
        async def handle(_: Any, context: Context) -> Any:
            async with self._turn(context):
                return await inner(await only_request(context), context)

        return handle

    def _many(self, inner: Any, request_streaming: bool) -> Any:
        async def handle(_: Any, context: Context) -> None:
            async with self._turn(context):
                answers = inner(requests(context) if request_streaming else await only_request(context), context)
                if inspect.isawaitable(answers):  # it writes by itself
                    await answers
                    return
                async for answer in answers:
                    await context.write(answer)

        return handle

    @asynccontextmanager
    async def _turn(self, context: Context) -> AsyncIterator[None]:
        if len(self._turns) >= MOST:
            oldest = next(iter(self._turns))
            del self._turns[oldest]
            oldest.reschedule(asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(None) as turn:
                self._turns[turn] = None
                try:
                    yield
                finally:
                    self._turns.pop(turn, None)
        except TimeoutError:
            await abort(context, Refusal(Code.UNAVAILABLE, f"more than {MOST} open calls: this was the oldest"))
        except Exception as error:
            refusal = refusal_of(error)
            if refusal is None:
                raise
            await abort(context, refusal)
