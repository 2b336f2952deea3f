"""Who goes next at a replica: the most urgent of the calls that wait, among equals the one that came first."""

import asyncio
import heapq
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


class Expired(Exception):
    """The call's time was over before its turn came; nothing was started."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """How urgent a call is. rank: 0 goes first. left_s: time after which it is not worth starting; clocks of two nodes
    cannot be compared, so it counts from the call's arrival."""

    rank: int = 0
    left_s: float | None = None


class Turns:
    """One call at a time. Belongs to one event loop."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()
        self._taken = False

    @asynccontextmanager
    async def take(self, turn: Turn) -> AsyncIterator[None]:
        """Waits for the call's turn. Raises Expired."""
        arrived = time.monotonic()
        if self._taken:
            ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (turn.rank, next(self._arrivals), ready))
            try:
                await ready
            except asyncio.CancelledError:
                if ready.done() and not ready.cancelled():  # its turn had just come
                    self._next()
                raise
        self._taken = True
        try:
            if turn.left_s is not None and time.monotonic() - arrived >= turn.left_s:
                raise Expired(f"waited longer than the {turn.left_s:.1f} s that were left")
            yield
        finally:
            self._next()

    def _next(self) -> None:
        """Hands the turn on, without a moment in which a newcomer could take it."""
        while self._waiting:
            _, _, ready = heapq.heappop(self._waiting)
            if not ready.done():
                ready.set_result(None)
                return
        self._taken = False
