"""`POST /v1/realtime/tokens`: a backend exchanges its API key for a token that a page may have."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from helios_engine.errors import InvalidField
from helios_services.gateway.calls.tokens import DEFAULT_S, MAX_S, MIN_S, TokenRequest
from helios_services.gateway.guard.caller import Call
from helios_services.gateway.guard.refusal import bad_request
from helios_services.gateway.http.admission import calling, house
from helios_services.gateway.http.bodies import json_body

router = APIRouter()


class TokenBody(BaseModel):
    """What the token is to allow; each field may be left out."""

    model_config = ConfigDict(extra="forbid")

    scopes: list[str] = Field([], max_length=3)
    """Scopes out of the key's own: submit, read, cancel. Empty: submit and read, as far as the key has them."""
    models: list[str] = Field([], max_length=16)
    """Models that jobs may name. Empty: all."""
    expires_in_s: float = Field(DEFAULT_S, ge=MIN_S, le=MAX_S)
    """How long a session can be begun or joined with it. One that is open goes on."""
    one_session: bool = False
    """It starts one session, again and again the same, and no other job exists for it."""
    job_id: str = Field("", max_length=64)
    """It starts nothing, and this job only exists for it."""


class RealtimeToken(BaseModel):
    """A token for a page."""

    object: str = "realtime.token"
    token: str
    expires_at: int
    """Unix time."""
    scopes: list[str]
    models: list[str]
    job_id: str
    """The only job that exists for it; empty: all of the tenant."""


@router.post(
    "/v1/realtime/tokens",
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": TokenBody.model_json_schema()}}}},
)
async def create_token(request: Request, call: Annotated[Call, calling("CreateToken")]) -> RealtimeToken:
    """A short-lived token, signed by the gateway. It can do at most what its API key can."""
    try:
        asked: dict[str, Any] = TokenBody.model_validate(await json_body(request)).model_dump()
    except ValidationError as error:
        raise bad_request(
            [InvalidField(".".join(map(str, each["loc"])), each["input"], each["msg"]) for each in error.errors()]
        ) from None
    made = await house(request).api.create_token(call, TokenRequest(**asked))
    return RealtimeToken(
        token=made.token,
        expires_at=made.expires_s,
        scopes=sorted(made.scopes),
        models=sorted(made.terms.models),
        job_id=made.terms.job_id,
    )
