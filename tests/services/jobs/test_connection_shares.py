"""One user takes a share of a store's connections: the rest is there for others, whatever that user begins."""

import asyncio
from typing import Any

import pytest

from helios_services.jobs.calls import StoreCalls
from helios_services.jobs.connect import MAX_CONNECTIONS
from helios_services.jobs.connection_shares import MOST, used_by


class Silent:
    """A Redis that does not answer until it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = asyncio.Event()

    async def get(self, key: str) -> bytes:
        self.asked.append(key)
        await self.answer.wait()
        return b"value"


def ask(store: StoreCalls, client: Silent, user: str) -> asyncio.Task[Any]:
    with used_by(user):
        return asyncio.create_task(store._answer(client.get(user)))


async def test_a_user_with_a_thousand_calls_has_a_quarter_of_the_connections() -> None:
    client: Any = Silent()
    store = StoreCalls(client, "n")
    calls = [ask(store, client, "loud") for _ in range(1000)]
    await asyncio.sleep(0)
    assert client.asked == ["loud"] * MOST
    assert MOST <= MAX_CONNECTIONS / 4
    calls += [ask(store, client, user) for user in ("quiet", "", "")]
    await asyncio.sleep(0)
    assert client.asked[MOST:] == ["quiet", "", ""]
    client.answer.set()
    assert await asyncio.gather(*calls) == [b"value"] * 1003


@pytest.mark.filterwarnings("error")
async def test_a_call_that_is_cancelled_before_its_turn_leaves_nothing() -> None:
    client: Any = Silent()
    store = StoreCalls(client, "n")
    calls = [ask(store, client, "loud") for _ in range(MOST + 1)]
    await asyncio.sleep(0)
    calls.pop().cancel()
    await asyncio.sleep(0)
    calls.append(ask(store, client, "loud"))
    client.answer.set()
    assert await asyncio.gather(*calls) == [b"value"] * (MOST + 1)


async def test_a_readers_copy_has_the_same_share() -> None:
    """Streams read through a reader of their own, on the same connections."""
    from helios_services.gateway.calls.shared_reads import SharedReads  # a gateway's, above this room
    from helios_services.jobs.reader import JobReader

    reader = JobReader(Silent(), "n")  # type: ignore[arg-type]
    assert SharedReads(reader)._shares is reader._shares
