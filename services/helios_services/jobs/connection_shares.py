"""How many of a store's connections one user of it can take: the others always find some."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from weakref import WeakValueDictionary

MOST = 16
"""Connections of one user at a time: a quarter of those that a store makes to a server."""
_USER: ContextVar[str] = ContextVar("helios_store_user", default="")


@contextmanager
def used_by(user: str) -> Iterator[None]:
    """Calls of stores in this block, and in tasks that begin in it, are this user's; "": nobody's, without a limit."""
    before = _USER.get()
    _USER.set(user)
    try:
        yield
    finally:
        _USER.set(before)


class ConnectionShares:
    """The shares of one store's connections."""

    def __init__(self) -> None:
        self._shares: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def one(self) -> AbstractAsyncContextManager[None]:
        """A place among the connections of whoever uses the store: waits for one of its own."""
        user = _USER.get()
        if not user:
            return nullcontext()
        share = self._shares.get(user)
        if share is None:
            share = self._shares[user] = asyncio.Semaphore(MOST)
        return share
