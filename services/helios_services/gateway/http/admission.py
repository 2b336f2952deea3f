"""How a request is let in: the guard decides on its headers, and holds its place until the answer has been sent."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends
from fastapi.exceptions import RequestValidationError
from starlette.requests import HTTPConnection

from helios_engine.errors import InvalidField
from helios_services.config import ServiceConfig
from helios_services.gateway.calls.api import Api
from helios_services.gateway.guard.caller import Call
from helios_services.gateway.guard.drain import Drain
from helios_services.gateway.guard.guard import Guard
from helios_services.gateway.guard.keys import HEADER, SCHEME
from helios_services.gateway.guard.refusal import bad_request
from helios_services.gateway.guard.tokens import is_token


@dataclass(frozen=True, kw_only=True)
class House:
    """What is behind the door."""

    api: Api
    guard: Guard
    config: ServiceConfig
    drain: Drain


def house(connection: HTTPConnection) -> House:
    """That of the application that serves this request or socket."""
    found: House = connection.app.state.house
    return found


def headers_of(connection: HTTPConnection) -> list[tuple[str, str]]:
    """As the guard takes them."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in connection.scope["headers"]]


def peer_of(connection: HTTPConnection) -> str:
    """The client's address, as gRPC names it."""
    if connection.client is None:
        return ""
    host, port = connection.client
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


def _problems(error: RequestValidationError) -> Iterator[InvalidField]:
    """What is wrong with the parameters of a path or a query."""
    for each in error.errors():
        yield InvalidField(".".join(map(str, each["loc"][1:])), each.get("input"), each["msg"])


def _in_query(connection: HTTPConnection) -> list[tuple[str, str]]:
    """A viewer's token, for players that set no headers. An API key is none: addresses are kept and shown."""
    token = connection.query_params.get("token", "")
    if not is_token(token) or "authorization" in connection.headers:
        return []
    return [(HEADER, SCHEME + token)]


def calling(method: str, *, token_in_query: bool = False) -> Any:
    """A dependency: the call, let in. method: its name in SCOPES. token_in_query: a token may stand in the address.

    What the request's body holds is not looked at before. The place is given back when the last byte has been sent.
    """

    async def admitted(connection: HTTPConnection) -> AsyncIterator[Call]:
        guard = house(connection).guard
        headers = headers_of(connection) + (_in_query(connection) if token_in_query else [])
        with guard.call(method, headers, peer=peer_of(connection)) as call:
            try:
                yield call
            except RequestValidationError as error:
                raise bad_request(list(_problems(error))) from None

    return Depends(admitted, scope="request")


Submitting = Annotated[Call, calling("SubmitJob")]
Reading = Annotated[Call, calling("GetJob")]
Listing = Annotated[Call, calling("ListJobs")]
Watching = Annotated[Call, calling("WatchJob")]
Streaming = Annotated[Call, calling("StreamVideo", token_in_query=True)]
Downloading = Annotated[Call, calling("DownloadVideo")]
Generating = Annotated[Call, calling("GenerateVideo")]
Deleting = Annotated[Call, calling("DeleteJob")]
Looking = Annotated[Call, calling("ListModels")]
