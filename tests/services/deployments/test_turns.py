"""Who goes next at a replica."""

import asyncio
import contextlib

import pytest

from helios_services.deployments.dispatch.turns import Expired, Turn, Turns


class Caller:
    """Calls that wait for their turn, and the order in which they got it."""

    def __init__(self) -> None:
        self.turns, self.order = Turns(linger_s=0.0), list[str]()

    async def call(self, name: str, turn: Turn, until: asyncio.Event | None = None) -> None:
        async with self.turns.take(turn):
            self.order.append(name)
            if until is not None:
                await until.wait()

    async def start(self, name: str, turn: Turn, until: asyncio.Event | None = None) -> "asyncio.Task[None]":
        """Has arrived when this returns."""
        task = asyncio.create_task(self.call(name, turn, until))
        await asyncio.sleep(0)
        return task


async def test_the_most_urgent_goes_next_and_among_equals_the_first() -> None:
    caller, end = Caller(), asyncio.Event()
    tasks = [await caller.start("running", Turn(rank=2), end)]
    for name, rank in (("batch", 2), ("normal 1", 1), ("normal 2", 1), ("interactive", 0)):
        tasks.append(await caller.start(name, Turn(rank=rank)))
    end.set()
    await asyncio.gather(*tasks)
    assert caller.order == ["running", "interactive", "normal 1", "normal 2", "batch"]


@pytest.mark.parametrize(("back", "order"), [(True, "urgent urgent lesser"), (False, "urgent lesser urgent")])
async def test_the_turn_is_kept_for_a_moment_for_one_as_urgent(back: bool, order: str) -> None:
    caller, end = Caller(), asyncio.Event()
    caller.turns = Turns(linger_s=600.0 if back else 0.0)
    running, lesser = await caller.start("urgent", Turn(rank=0), end), await caller.start("lesser", Turn(rank=1))
    end.set()
    await running
    if not back:
        await lesser
    await caller.call("urgent", Turn(rank=0))
    caller.turns._grant()  # the moment is over
    await lesser
    assert caller.order == order.split()


async def test_work_whose_time_is_over_is_not_started() -> None:
    caller, end = Caller(), asyncio.Event()
    running = await caller.start("running", Turn(), end)
    late, patient = await caller.start("late", Turn(left_s=0.01)), await caller.start("patient", Turn(left_s=600))
    await asyncio.sleep(0.02)
    end.set()
    with pytest.raises(Expired):
        await late
    await asyncio.gather(running, patient)
    assert caller.order == ["running", "patient"]
    with pytest.raises(Expired):
        await caller.call("over on arrival", Turn(left_s=0.0))


@pytest.mark.parametrize("its_turn_has_come", [False, True])
async def test_a_caller_that_gives_up_blocks_nobody(its_turn_has_come: bool) -> None:
    caller, end = Caller(), asyncio.Event()
    running = await caller.start("running", Turn(), end)
    gone, after = await caller.start("gone", Turn(rank=0)), await caller.start("after", Turn(rank=1))
    if its_turn_has_come:
        end.set()
        await running
    gone.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await gone
    end.set()
    await asyncio.wait_for(asyncio.gather(running, after), 60)
    await asyncio.wait_for(caller.call("newcomer", Turn()), 60)
    assert [name for name in caller.order if name != "gone"] == ["running", "after", "newcomer"]


async def test_a_call_that_fails_hands_the_turn_on() -> None:
    turns = Turns()
    for _ in range(2):
        with pytest.raises(ValueError, match="boom"):
            async with turns.take(Turn()):
                raise ValueError("boom")
