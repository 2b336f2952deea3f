"""The guard of a door: every call passes it before anything of its body is waited for."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import structlog

from helios_services.gateway.guard.caller import Call
from helios_services.gateway.guard.in_progress import InProgress
from helios_services.gateway.guard.keys import Headers, KeyRing
from helios_services.gateway.guard.local_users import LocalUsers
from helios_services.gateway.guard.metrics import CallMetrics
from helios_services.gateway.guard.refusal import Code, Refusal, refusal_of
from helios_services.jobs.connection_shares import used_by
from helios_services.telemetry.tracing import incoming, span

log = structlog.get_logger(__name__)


class Guard:
    """Keys and limits are those of the gateway, the metrics the door's own."""

    def __init__(
        self, keys: KeyRing, in_progress: InProgress, metrics: CallMetrics, local_users: LocalUsers | None = None
    ) -> None:
        self._keys, self._in_progress, self._metrics = keys, in_progress, metrics
        self._local_users = local_users

    @contextmanager
    def call(self, method: str, headers: Headers, left_s: float | None = None, *, peer: str = "") -> Iterator[Call]:
        """Lets a call in, for the time of the block: who calls and what they may is known from the headers alone.

        The call is counted, timed and traced. Every error of the block leaves it as a Refusal, which is all that a
        door has to answer with. left_s: what the client gives the call. peer: its address, for LocalUsers.
        """
        with self._metrics.call(method) as outcome:
            try:
                if self._local_users is not None:
                    self._local_users.check(peer)
                caller = self._keys.authenticate(method, headers)
                # a stranger's call is counted, but not traced: spans cost what only callers may spend
                with (
                    self._in_progress.one(caller.key_id),
                    used_by(caller.key_id),
                    span(method, incoming(headers), reason=_code),
                ):
                    try:
                        yield Call(method=method, caller=caller, left_s=left_s)
                    except Exception as error:
                        raise _refusal(method, error) from None
            except Refusal as refusal:
                log.debug("call_refused", method=method, code=refusal.code.name)
                outcome.code = refusal.code
                raise
            outcome.code = Code.OK


def _refusal(method: str, error: Exception) -> Refusal:
    refusal = refusal_of(error)
    if refusal is None:
        error_id = uuid4().hex[:12]
        log.error("call_failed", method=method, error_id=error_id, exc_info=error)
        return Refusal(Code.INTERNAL, f"internal error {error_id}")
    return refusal


def _code(error: Exception) -> str:
    return error.code.name if isinstance(error, Refusal) else type(error).__name__
