"""How long a call may take to say what it wants."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

from helios_services.gateway.guard.refusal import Code, Refusal

MESSAGE_S = 20.0
"""For a whole message, after the call's headers or after the message before it."""
T = TypeVar("T")


async def soon(message: Awaitable[T]) -> T:
    """What the client is about to send. Raises Refusal (DEADLINE_EXCEEDED) when it is not there in MESSAGE_S."""
    try:
        async with asyncio.timeout(MESSAGE_S):
            return await message
    except TimeoutError:
        late = f"the request was not there within {MESSAGE_S:g} s of its headers, or of the part before it"
        raise Refusal(Code.DEADLINE_EXCEEDED, late) from None


async def each_soon(messages: AsyncIterator[T]) -> AsyncIterator[T]:
    """Messages that follow one another without a pause of MESSAGE_S. Raises as `soon` does."""
    while True:
        try:
            message = await soon(anext(messages))
        except StopAsyncIteration:
            return
        yield message
