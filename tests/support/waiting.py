"""Waiting for what no event tells: the condition is looked at every 10 ms at first, every 200 ms in the end."""

import asyncio
import time
from collections.abc import Callable, Iterator
from inspect import isawaitable


async def until(condition: Callable[[], object], limit_s: float = 120.0) -> None:
    """Returns once the condition, or what it awaits, is true. Raises TimeoutError."""
    async with asyncio.timeout(limit_s):
        for pause_s in _pauses():
            met = condition()
            if await met if isawaitable(met) else met:
                return
            await asyncio.sleep(pause_s)


def wait_until(condition: Callable[[], object], limit_s: float = 120.0) -> None:
    """The same for threads."""
    end = time.monotonic() + limit_s
    for pause_s in _pauses():
        if condition():
            return
        if time.monotonic() > end:
            raise TimeoutError(f"{condition} did not come true within {limit_s:.0f} s")
        time.sleep(pause_s)


def _pauses() -> Iterator[float]:
    pause_s = 0.01
    while True:
        yield pause_s
        pause_s = min(0.2, pause_s * 1.1)
