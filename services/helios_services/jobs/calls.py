"""How the store is called: one Lua script for each change, and what its answers mean."""

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from redis.asyncio import Redis, RedisCluster

from helios_services.jobs.connect import answered
from helios_services.jobs.connection_shares import ConnectionShares
from helios_services.jobs.errors import (
    InvalidTransition,
    JobNotFound,
    JobStoreError,
    LeaseLost,
    NoChunkLeft,
    NotDeadLettered,
    PromptsFull,
    QuotaExceeded,
    SessionEnded,
)
from helios_services.jobs.keys import Keys
from helios_services.jobs.scripts import source

BYTES = {
    "stored_bytes": "is used up by jobs that have not ended and dead letters",
    "output_bytes": "is used up by what jobs that have not ended, and dead letters, have made",
}
"""Limits of what an account may store, and what has used one up."""


class StoreCalls:
    """Scripts and commands in one namespace. Any of them may raise StoreUnavailable or StorageFull.

    shares: those of the client's connections, where others use it too.
    """

    def __init__(self, client: Redis | RedisCluster, namespace: str, shares: ConnectionShares | None = None) -> None:
        self._client: Any = client  # redis-py's types leave open whether replies are bytes
        self._shares = shares or ConnectionShares()
        self._keys = Keys(namespace)
        self._scripts: dict[str, Any] = {}

    async def _call(self, name: str, *args: str | int | float | bytes) -> list[Any]:
        """A script's answer as it comes."""
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self._client.register_script(source(name))
        answer: list[Any] = await self._answer(script(keys=[self._keys.root], args=args))
        return answer

    async def _run(self, name: str, *args: str | int | float | bytes) -> list[str]:
        """A script's answer, of texts and numbers."""
        return texts(await self._call(name, *args))

    async def _answer(self, command: Coroutine[Any, Any, Any]) -> Any:
        try:
            async with self._shares.one():
                with answered():
                    return await command
        finally:
            command.close()  # one that was not begun: its call was cancelled before its turn

    @asynccontextmanager
    async def _pipeline(self) -> AsyncIterator[Any]:
        """Commands that travel together, in no transaction."""
        async with self._shares.one():
            with answered():
                async with self._client.pipeline(transaction=False) as pipeline:
                    yield pipeline


def texts(answer: list[Any]) -> list[str]:
    """Parts of an answer as texts."""
    return [part.decode() if isinstance(part, bytes) else str(part) for part in answer]


def record_of(flat: list[bytes]) -> dict[bytes, bytes]:
    """A hash within an answer."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def check(job_id: str, answer: list[str]) -> None:
    """Raises what an answer says, unless it is ok."""
    if answer[0] != "ok":
        refuse(job_id, answer)


def refuse(job_id: str, answer: list[str]) -> NoReturn:
    """Raises what an answer says."""
    match answer:
        case ["not_found"]:
            raise JobNotFound(f"job {job_id!r} does not exist or has expired")
        case ["lease_lost"]:
            raise LeaseLost(f"job {job_id!r}: the lease is gone")
        case ["invalid", state]:
            raise InvalidTransition(f"job {job_id!r} is {state}", state=state)
        case ["late", total]:
            raise NoChunkLeft(f"job {job_id!r} has no chunk left that has not started (it has {total})")
        case ["full", count]:
            raise PromptsFull(f"job {job_id!r}: its prompt was changed {count} times, which is all it may be")
        case ["long", limit]:
            raise PromptsFull(f"job {job_id!r}: its prompt updates may take {int(limit):,} bytes together")
        case ["quota", name, limit, retry_ms] if name in BYTES:
            raise _bytes_used_up(name, int(float(limit)), retry_ms)
        case ["not_dead", state]:
            raise NotDeadLettered(f"job {job_id!r} is {state}, and no dead letter")
        case ["lapsed" | "no_session"]:
            raise SessionEnded(f"job {job_id!r} has no live session (any more)")
        case ["gap", done]:
            raise ValueError(f"job {job_id!r}: {done} chunks are done, the call does not continue there")
    raise JobStoreError(f"job {job_id!r}: unexpected answer {answer!r}")


def _bytes_used_up(name: str, limit: int, retry_ms: str) -> QuotaExceeded:
    used_up = "the job alone takes more" if name == "stored_bytes" and not retry_ms else BYTES[name]
    message = f"{name} of this API key's account is {limit:,}, and {used_up}"
    return QuotaExceeded(message, limit=name, retry_after_s=int(retry_ms) / 1000 if retry_ms else None)
