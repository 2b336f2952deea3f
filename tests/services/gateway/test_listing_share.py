"""Lists of jobs take a bounded share of a gateway, and no key takes another's: a hundred at once starve nobody."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from helios.v1 import video_generation_pb2 as pb
from helios_services.client import AsyncHeliosClient, Connection
from helios_services.config import ServiceConfig
from helios_services.gateway.calls.listing import PAGE_JOBS
from helios_services.gateway.guard.caller import Scope
from helios_services.gateway.guard.in_turn import InTurn
from helios_services.gateway.guard.keys import new_key
from helios_services.gateway.guard.refusal import Refusal
from helios_services.gateway.server import Gateway
from support.gateway import serving
from support.waiting import until


class Lister:
    """Takes turns of a key, for as long as they are wanted."""

    def __init__(self, lane: InTurn, served: list[str]) -> None:
        self._lane, self._served, self.end = lane, served, asyncio.Event()

    async def list(self, key_id: str) -> None:
        async with self._lane.one(key_id):
            self._served.append(key_id)
            await self.end.wait()


async def test_keys_take_turns_and_only_so_many_calls_of_one_wait() -> None:
    lane, served = InTurn(1.0, 3, "listings"), list[str]()
    lister = Lister(lane, served)
    calls = [asyncio.create_task(lister.list("loud")) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(Refusal) as caught:
        await lister.list("loud")
    assert (caught.value.quota, caught.value.retry_after_s) == ("concurrent_listings_per_key", 1.0)
    calls += [asyncio.create_task(lister.list("quiet")), asyncio.create_task(lister.list("another"))]
    await asyncio.sleep(0)
    assert served == ["loud"]
    lister.end.set()
    await asyncio.gather(*calls)
    assert served == ["loud", "loud", "quiet", "another", "loud", "loud"]


async def test_there_is_a_rest_after_each_turn() -> None:
    lane, served = InTurn(0.01, 3, "listings"), list[str]()
    lister = Lister(lane, served)
    calls = [asyncio.create_task(lister.list(key)) for key in ("a", "b")]
    await asyncio.sleep(0.01)
    lister.end.set()
    await calls[0]
    for _ in range(20):
        await asyncio.sleep(0)
    assert served == ["a"]
    await calls[1]


async def test_a_cancelled_call_leaves_its_turn_to_the_next() -> None:
    lane, served = InTurn(1.0, 5, "listings"), list[str]()
    lister = Lister(lane, served)
    calls = [asyncio.create_task(lister.list(key)) for key in ("a", "b", "b", "c")]
    await asyncio.sleep(0)
    calls[1].cancel()
    calls[0].cancel()
    lister.end.set()
    calls[2].cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert served == ["a", "c"]
    await lister.list("a")


@pytest.fixture
async def callers(config: ServiceConfig, tmp_path: Path) -> AsyncIterator[tuple[Gateway, Any, Any]]:
    """A gateway with two keys, and a client of each."""
    made = [new_key(name, name, frozenset({Scope.SUBMIT, Scope.READ})) for name in ("loud", "quiet")]
    file = tmp_path / "keys.yaml"
    file.write_text(yaml.safe_dump({"keys": [entry.model_dump(mode="json") for _, entry in made]}))
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(serving(config, api_keys_file=str(file)))
        clients = [
            await stack.enter_async_context(AsyncHeliosClient(f"127.0.0.1:{gateway.port}", Connection(api_key=key)))
            for key, _ in made
        ]
        yield gateway, clients[0], clients[1]


async def test_a_hundred_lists_at_once_leave_room_for_other_keys(callers: tuple[Gateway, Any, Any]) -> None:
    _, loud, quiet = callers
    await quiet.submit("a lake")

    async def code(client: AsyncHeliosClient) -> grpc.StatusCode:
        try:
            await client._stub.ListJobs(pb.ListJobsRequest(page_size=500))
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    flood = [asyncio.create_task(code(loud)) for _ in range(100)]
    await until(lambda: any(call.done() for call in flood))
    assert await code(quiet) is grpc.StatusCode.OK
    ended = await asyncio.gather(*flood)
    assert ended.count(grpc.StatusCode.RESOURCE_EXHAUSTED) >= 50


async def test_a_page_has_a_bounded_number_of_jobs(callers: tuple[Gateway, Any, Any]) -> None:
    gateway, loud, _ = callers
    ids = set()
    for _ in range(PAGE_JOBS + 5):
        job = await loud.submit("a lake")
        await gateway._store.cancel(job.id)
        ids.add(job.id)
    page = await loud._stub.ListJobs(pb.ListJobsRequest(page_size=500))
    assert len(page.jobs) == PAGE_JOBS
    assert {job.id async for job in loud.list(page_size=500)} == ids


async def test_health_and_webhooks_wait_for_no_callers_connection(gateway: Gateway) -> None:
    pool = gateway._store._client.connection_pool
    taken = [await pool.get_connection() for _ in range(pool.max_connections)]
    gateway.metrics.store_lost()
    await gateway._look_at_redis()
    assert gateway.metrics.registry.get_sample_value("helios_job_store_up") == 1
    assert gateway._webhooks._store is not gateway._store
    for connection in taken:
        await pool.release(connection)
