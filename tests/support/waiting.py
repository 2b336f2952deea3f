"""Waiting for what no event tells."""

import asyncio
from collections.abc import Callable
from inspect import isawaitable


async def until(condition: Callable[[], object], limit_s: float = 60.0) -> None:
    """Returns once the condition, or what it awaits, is true. Raises TimeoutError."""
    async with asyncio.timeout(limit_s):
        while True:
            met = condition()
            if await met if isawaitable(met) else met:
                return
            await asyncio.sleep(0.01)
