"""Makes gRPC's handlers of the servicer's methods.

To gRPC every method streams its requests, also those that have one only: such a handler is entered on the headers, and
the guard decides before a message is waited for. Handlers of single requests would wait for the message first, for as
long as a client that sends headers only stays connected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from helios.v1 import video_generation_pb2 as pb
from helios_services.gateway.grpc.requests import only_request, requests, tolerant
from helios_services.gateway.grpc.servicer import Servicer
from helios_services.gateway.grpc.status import abort
from helios_services.gateway.guard.guard import Guard
from helios_services.gateway.guard.refusal import Refusal

SERVICE = pb.DESCRIPTOR.services_by_name["VideoGeneration"]
if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]


def service_handler(servicer: Servicer, guard: Guard) -> grpc.GenericRpcHandler:
    """The service behind the guard."""
    handlers = {method.name: _handler(method, servicer, guard) for method in SERVICE.methods}
    return grpc.method_handlers_generic_handler(SERVICE.full_name, handlers)


def _handler(method: MethodDescriptor, servicer: Servicer, guard: Guard) -> Handler:
    answer = getattr(servicer, method.name)

    def admitted(context: Context) -> Any:
        headers = context.invocation_metadata() or ()
        return guard.call(method.name, headers, context.time_remaining(), peer=context.peer())

    async def said(context: Context) -> Any:
        return requests(context) if method.client_streaming else await only_request(context)

    async def one(_: Any, context: Context) -> Any:
        try:
            with admitted(context) as call:
                return await answer(call, await said(context))
        except Refusal as refusal:
            await abort(context, refusal)

    async def many(_: Any, context: Context) -> None:
        try:
            with admitted(context) as call:
                async with aclosing(answer(call, await said(context))) as responses:
                    async for response in responses:
                        with _gone_is_cancelled():
                            await context.write(response)
        except Refusal as refusal:
            await abort(context, refusal)

    options: dict[str, Any] = {
        "request_deserializer": tolerant(GetMessageClass(method.input_type).FromString),
        "response_serializer": GetMessageClass(method.output_type).SerializeToString,
    }
    if method.server_streaming:
        return grpc.stream_stream_rpc_method_handler(many, **options)
    return grpc.stream_unary_rpc_method_handler(one, **options)


@contextmanager
def _gone_is_cancelled() -> Iterator[None]:
    """To a client that has gone, a write fails in ways of gRPC's own; the call is cancelled, as it always is then."""
    try:
        yield
    except grpc.aio.BaseError:
        raise asyncio.CancelledError from None
