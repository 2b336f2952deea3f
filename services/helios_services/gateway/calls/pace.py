"""How far ahead of its viewer a live session is delivered."""

import asyncio

from helios_engine.errors import InvalidField


class Pace:
    """Is kept once the client says what its viewer has seen; without that, the connection alone holds delivery back.

    ahead: chunks that may be delivered beyond the last that was played.
    """

    def __init__(self, ahead: int) -> None:
        self._ahead = ahead
        self._moved = asyncio.Event()
        self.kept, self.chunks = False, 0

    @property
    def lead(self) -> int | None:
        """Chunks that the session may be ahead of the viewer; None: as far as the service lets any."""
        return self._ahead if self.kept else None

    def played(self, chunks: int) -> None:
        """The viewer has seen so many chunks. Raises InvalidField."""
        if chunks < 0:
            raise InvalidField("played.chunks", chunks, "an integer from 0 on")
        self.kept, self.chunks = True, max(self.chunks, chunks)
        self._moved.set()

    async def room(self, index: int) -> None:
        """Returns once the chunk may be delivered."""
        while self.kept and index >= self.chunks + self._ahead:
            self._moved.clear()
            await self._moved.wait()
