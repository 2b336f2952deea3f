"""Tasks end, also those that lose a cancellation."""

import asyncio

from helios_services.tasks import cancelled


async def test_a_task_that_forgets_its_first_cancellation_ends() -> None:
    forgotten: list[str] = []

    async def forgetful() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if forgotten:
                    raise
                forgotten.append("once")

    task = asyncio.create_task(forgetful())
    await asyncio.sleep(0)
    await asyncio.wait_for(cancelled(task), 30)
    assert task.cancelled()
    assert forgotten == ["once"]


async def test_what_a_task_raises_is_dropped() -> None:
    async def fails() -> None:
        raise ValueError("boom")

    task = asyncio.create_task(fails())
    await asyncio.wait({task})
    await cancelled(task)
