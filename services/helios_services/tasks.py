"""Ending asyncio tasks for certain."""

import asyncio
from collections.abc import Coroutine
from typing import Any

AGAIN_S = 0.5


async def cancelled(*tasks: "asyncio.Task[Any]") -> None:
    """Cancels tasks until all have ended; what they raise is dropped.

    Once is not enough: asyncio.wait_for of Python 3.11, which redis-py's writes go through, forgets a cancellation that
    comes as the write ends (python/cpython#86296), and a loop around it would go on for ever.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)


class Background:
    """Tasks that go on when whoever began them has gone."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Begins it; await it through asyncio.shield."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def settled(self) -> None:
        """Waits until all of them have ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)
