"""Work that takes more of a gateway than a call should: one piece at a time, keys in turn, and rests in between."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from helios_services.gateway.guard.refusal import Code, Refusal

RETRY_S = 1.0
LONGEST_REST_S = 0.5
"""After a piece that took long for another reason: the store did not answer, say."""


class InTurn:
    """share: of the time, that such work takes at most. waiting: pieces of one key that may wait for their turn.

    Belongs to one event loop.
    """

    def __init__(self, share: float, waiting: int, what: str) -> None:
        self._rests, self._most_waiting, self._what = 1 / share - 1, waiting, what
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By key; the first key is served next."""
        self._taken = False

    @asynccontextmanager
    async def one(self, key_id: str) -> AsyncIterator[None]:
        """Waits for a turn of this key. Raises Refusal (RESOURCE_EXHAUSTED) when too many wait for it already."""
        if len(self._waiting.get(key_id, ())) >= self._most_waiting:
            message = f"{self._most_waiting} {self._what} wait for their turn, which is all there may be of an API key"
            quota = f"concurrent_{self._what}_per_key"
            raise Refusal(Code.RESOURCE_EXHAUSTED, message, quota=quota, retry_after_s=RETRY_S)
        if self._taken:
            await self._turn(key_id)
        self._taken = True
        begun_s = time.perf_counter()
        try:
            yield
        finally:
            rest_s = min(self._rests * (time.perf_counter() - begun_s), LONGEST_REST_S)
            asyncio.get_running_loop().call_later(rest_s, self._hand_on)

    async def _turn(self, key_id: str) -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key_id, deque()).append(ready)
        try:
            await ready
        except asyncio.CancelledError:
            if ready.done() and not ready.cancelled():  # its turn had just come
                self._hand_on()
            elif ready in (line := self._waiting.get(key_id, deque())):
                line.remove(ready)
                if not line:
                    del self._waiting[key_id]
            raise

    def _hand_on(self) -> None:
        """To the key that is first; it goes behind the others."""
        while self._waiting:
            key_id, line = next(iter(self._waiting.items()))
            ready = line.popleft()
            del self._waiting[key_id]
            if line:
                self._waiting[key_id] = line
            if not ready.done():  # else its call was cancelled
                ready.set_result(None)
                return
        self._taken = False
