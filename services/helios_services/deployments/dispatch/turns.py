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
    """How urgent a call is.

    rank: 0 goes first. left_s: seconds after the call's arrival from which on it is not worth starting; not a time of
    day, as clocks of two nodes cannot be compared.
    """

    rank: int = 0
    left_s: float | None = None


class Turns:
    """One call at a time. Belongs to one event loop.

    linger_s: after an urgent call, the turn is kept this long for another call as urgent. A job asks for its next chunk
    when the last one is there; without the wait, a less urgent job would slip in each time.
    """

    def __init__(self, linger_s: float = 0.05) -> None:
        self._linger_s = linger_s
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()
        self._taken = False
        self._kept: tuple[int, asyncio.TimerHandle] | None = None

    @asynccontextmanager
    async def take(self, turn: Turn) -> AsyncIterator[None]:
        """Waits for the call's turn. Raises Expired."""
        arrived = time.monotonic()
        if self._kept is not None and turn.rank <= self._kept[0]:
            self._kept[1].cancel()
            self._kept = None
        elif self._taken:
            ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (turn.rank, next(self._arrivals), ready))
            try:
                await ready
            except asyncio.CancelledError:
                if ready.done() and not ready.cancelled():  # its turn had just come
                    self._grant()
                raise
        self._taken = True
        try:
            if turn.left_s is not None and time.monotonic() - arrived >= turn.left_s:
                raise Expired(f"waited longer than the {turn.left_s:.1f} s that were left")
            yield
        finally:
            self._hand_on(turn.rank)

    def _hand_on(self, rank: int) -> None:
        waiting = min((entry[0] for entry in self._waiting if not entry[2].done()), default=rank)
        if waiting <= rank:
            self._grant()
        else:
            self._kept = rank, asyncio.get_running_loop().call_later(self._linger_s, self._grant)

    def _grant(self) -> None:
        """Hands the turn to whoever is next, without a moment in which a newcomer could take it."""
        self._kept = None
        while self._waiting:
            _, _, ready = heapq.heappop(self._waiting)
            if not ready.done():
                ready.set_result(None)
                return
        self._taken = False
