"""Makes tokens for browsers: a backend asks with its API key, and hands the token to a page."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from helios_engine.errors import InvalidField
from helios_services.gateway.calls.access import visible_job
from helios_services.gateway.guard.caller import Call, Scope, Terms
from helios_services.gateway.guard.refusal import Code, Refusal
from helios_services.gateway.guard.tokens import Tokens
from helios_services.jobs.store import JobStore

MIN_S, MAX_S, DEFAULT_S = 10, 3600, 600
HANDED_ON = (Scope.SUBMIT, Scope.READ, Scope.CANCEL)


@dataclass(frozen=True, kw_only=True)
class TokenRequest:
    """What a token is to allow.

    scopes: of the key's; empty: submit and read, as far as the key has them. models: that jobs may name; empty: all.
    expires_in_s: how long it is good for. one_session: it starts one session, and sees no other job. job_id: it sees
    this job only, and starts none.
    """

    scopes: Sequence[str] = ()
    models: Sequence[str] = ()
    expires_in_s: float = DEFAULT_S
    one_session: bool = False
    job_id: str = ""


@dataclass(frozen=True, kw_only=True)
class MadeToken:
    """A token and what it allows. expires_s: Unix time, whole seconds."""

    token: str
    expires_s: int
    scopes: frozenset[Scope]
    terms: Terms


class TokenMaker:
    """tokens: None where the service has no secret to sign with, or asks for no keys."""

    def __init__(self, tokens: Tokens | None, store: JobStore, models: frozenset[str]) -> None:
        self._tokens, self._store, self._models = tokens, store, models

    async def make(self, call: Call, request: TokenRequest) -> MadeToken:
        """Raises InvalidField, JobNotFound, Refusal."""
        caller = call.caller
        if not caller.key_id:
            raise Refusal(Code.FAILED_PRECONDITION, "this service asks for no API keys, so that a page needs no token")
        if self._tokens is None:
            raise Refusal(
                Code.FAILED_PRECONDITION, "gateway.token_secrets_file: is not set, so that no token is signed"
            )
        if caller.terms is not None:
            raise Refusal(Code.PERMISSION_DENIED, "CreateToken: a token makes no tokens; use the API key")
        scopes = _scopes(request.scopes, caller.scopes)
        for model in request.models:
            if model not in self._models:
                raise InvalidField("models", model, ", ".join(sorted(self._models)))
        if not MIN_S <= request.expires_in_s <= MAX_S:
            raise InvalidField("expires_in_s", request.expires_in_s, f"{MIN_S} to {MAX_S} seconds")
        if request.one_session and request.job_id:
            raise InvalidField("one_session", True, "false where job_id names a session that is there")
        if request.job_id:
            await visible_job(self._store, caller, request.job_id)
        job_id = uuid4().hex if request.one_session else request.job_id
        terms = Terms(models=frozenset(request.models), job_id=job_id, starts=not request.job_id)
        expires_s = int(time.time() + request.expires_in_s)
        token = self._tokens.sign(caller, scopes, terms, expires_s)
        return MadeToken(token=token, expires_s=expires_s, scopes=scopes, terms=terms)


def _scopes(asked: Sequence[str], of_key: frozenset[Scope]) -> frozenset[Scope]:
    has = [scope for scope in HANDED_ON if scope in of_key or Scope.ADMIN in of_key]
    for name in asked:
        if name not in has:
            raise InvalidField("scopes", name, f"those of the key: {', '.join(has)}")
    return frozenset(map(Scope, asked)) if asked else frozenset(has) - {Scope.CANCEL}
