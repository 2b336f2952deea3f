"""Readers that stall or vanish, a gateway that is ended under load, and callers without credentials.

The test itself plays the worker: it appends chunks of recognisable bytes through the store.
"""

import asyncio
import hashlib
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from faults.conftest import Seen
from faults.proxy import FaultProxy, Mode
from faults.quick_service import JOB, QuickService, streams_of
from grpc_health.v1 import health_pb2, health_pb2_grpc

from helios.v1 import video_generation_pb2 as pb
from helios.v1.video_generation_pb2_grpc import VideoGenerationStub
from helios_services.client import AsyncHeliosClient, HeliosClient
from helios_services.config import JobsConfig
from helios_services.gateway.guard.caller import Scope
from helios_services.gateway.guard.keys import new_key
from helios_services.jobs.embedded import free_port
from helios_services.jobs.records import Claim
from services.gateway.conftest import Worker, fragment
from support.processes import GatewayProcess
from support.redis_servers import RedisServer
from support.waiting import wait_until

BIG_CHUNKS, BIG_BYTES = 40, 4_000_000
BY_HAND = JobsConfig(lease_s=600.0, heartbeat_s=300.0)
"""Nobody renews the test's leases."""
KEEPALIVE_S = 40.0
"""How long the gateway keeps a silent connection: a ping after 30 s, given up after 10 s more."""
READER = """
import sys
from helios_services.client import HeliosClient
for segment in HeliosClient(sys.argv[1]).stream(sys.argv[2]):
    print(len(segment.data), flush=True)
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuickService]:
    folder = tmp_path_factory.mktemp("streams")
    redis = RedisServer(folder / "redis")
    with QuickService(folder, redis.url, jobs=BY_HAND, gateway={"drain_s": 10.0}) as service:
        yield service
    redis.close()


class Vanished:
    """A reader whose host dies in mid-stream: no byte passes any more, nothing is closed."""

    def __init__(self, service: QuickService) -> None:
        self.job_id, self.claim = asyncio.run(begun(service, chunks=3, made=1))
        self.proxy = FaultProxy(int(service.gateway.address.rsplit(":", 1)[1]))
        self._client = HeliosClient(f"127.0.0.1:{self.proxy.port}")
        stream = self._client.stream(self.job_id)
        self.received = [next(stream).data for _ in range(2)]
        self.proxy.set(Mode.HALF_OPEN)
        self.since_s = time.monotonic()

    def close(self) -> None:
        """Ends what is left of it."""
        self._client.close()
        self.proxy.close()


@pytest.fixture(scope="module", autouse=True)
def vanished(service: QuickService) -> Iterator[Vanished]:
    """Vanishes before the first test; the last one looks what became of its call."""
    vanished = Vanished(service)
    yield vanished
    vanished.close()


@asynccontextmanager
async def by_hand(service: QuickService) -> AsyncIterator[Worker]:
    """The test's own worker."""
    worker = Worker(service.config)
    try:
        yield worker
    finally:
        await worker.store.close()


async def begun(service: QuickService, *, chunks: int, made: int, size: int = 100_000) -> tuple[str, Claim]:
    """A running job with some chunks made."""
    async with by_hand(service) as worker, AsyncHeliosClient(service.gateway.address) as client:
        job = await client.submit(**JOB | {"num_frames": 33 * chunks})
        claim = await worker.store.claim(service.config.model.name, "the test", job.id)
        assert claim is not None
        await extend(worker, claim, range(made), size)
    return job.id, claim


async def extend(worker: Worker, claim: Claim, indices: range, size: int = 100_000) -> None:
    """Appends chunks."""
    for index in indices:
        await worker.append(claim, index, size)


@pytest.mark.fault(number=15, fault="a reader takes three messages and stalls, while another takes all 160 MB")
async def test_a_stalled_reader_costs_no_memory(service: QuickService, seen: Seen) -> None:
    job_id, _ = await begun(service, chunks=BIG_CHUNKS, made=BIG_CHUNKS, size=BIG_BYTES)
    whole = hashlib.sha256(b"init" + b"".join(fragment(index, BIG_BYTES) for index in range(BIG_CHUNKS))).hexdigest()
    before = service.gateway.ps.memory_info().rss
    async with (
        grpc.aio.insecure_channel(service.gateway.address) as channel,
        AsyncHeliosClient(service.gateway.address) as other,
    ):
        stub: Any = VideoGenerationStub(channel)
        stalled = aiter(stub.StreamVideo(pb.StreamVideoRequest(job_id=job_id)))
        received = hashlib.sha256()
        for _ in range(3):
            received.update((await anext(stalled)).data)
        taken, most = hashlib.sha256(), 0
        async for segment in other.stream(job_id):
            taken.update(segment.data)
            most = max(most, service.gateway.ps.memory_info().rss - before)
        async for part in stalled:  # and goes on as if nothing had been
            received.update(part.data)
    assert taken.hexdigest() == received.hexdigest() == whole
    assert most < 48 * 2**20
    seen(f"gateway grew by at most {most / 2**20:.0f} MiB; both readers got all {BIG_CHUNKS} chunks, byte-identical")


@pytest.mark.fault(number=16, fault="a reader's process SIGKILLed in mid-stream")
async def test_a_killed_reader_is_forgotten_at_once(service: QuickService, tmp_path: Path, seen: Seen) -> None:
    job_id, claim = await begun(service, chunks=4, made=2)
    options = service.config.gateway.model_copy(update={"metrics_port": free_port()})
    gateway = GatewayProcess(service.config.model_copy(update={"gateway": options}), tmp_path / "log")
    command = [sys.executable, "-c", READER, gateway.address, job_id]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:  # noqa: ASYNC220 - starts in no time
            try:
                assert reader.stdout is not None
                for _ in range(3):  # init segment and two chunks
                    assert await asyncio.to_thread(reader.stdout.readline)
                assert streams_of(options.metrics_port) == 1
            finally:
                reader.kill()
        await asyncio.to_thread(wait_until, lambda: streams_of(options.metrics_port) == 0)
    finally:
        gateway.close()
    async with by_hand(service) as worker:
        await extend(worker, claim, range(2, 4))
    resumed = await asyncio.to_thread(service.stream, job_id, 2)
    assert resumed == [b"init", fragment(2, 100_000), fragment(3, 100_000)]
    seen("its handler ended; from_chunk=2 continued byte-identically")


@pytest.mark.fault(number=18, fault="SIGTERM to a gateway with 12 open streams; half of their jobs end meanwhile")
async def test_a_gateway_ends_in_order_under_load(service: QuickService, tmp_path: Path, seen: Seen) -> None:
    async with by_hand(service) as worker:
        leaving = GatewayProcess(service.config.model_copy(update={"gateway": elsewhere(service)}), tmp_path / "log")
        jobs = [await begun(service, chunks=3, made=1) for _ in range(12)]
        ends: list[tuple[float, str]] = []
        async with grpc.aio.insecure_channel(leaving.address) as channel:
            stub: Any = VideoGenerationStub(channel)
            health: Any = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            calls = [aiter(stub.StreamVideo(pb.StreamVideoRequest(job_id=job_id))) for job_id, _ in jobs]
            received = [[(await anext(call)).data for _ in range(2)] for call in calls]

            async def rest(number: int) -> None:
                try:
                    async for part in calls[number]:
                        received[number].append(part.data)
                    ends.append((time.monotonic(), "OK"))
                except grpc.aio.AioRpcError as error:
                    ends.append((time.monotonic(), f"{error.code().name}: {error.details()}"))

            readers = [asyncio.create_task(rest(number)) for number in range(len(jobs))]
            leaving.terminate()
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            flipped = time.monotonic()
            for _, claim in jobs[::2]:
                await extend(worker, claim, range(1, 3))
            await asyncio.gather(*readers)
        assert await asyncio.to_thread(leaving.ended) == 0
        assert min(end for end, _ in ends) > flipped
        whole = [b"init", *(fragment(index, 100_000) for index in range(3))]
        for number, (job_id, claim) in enumerate(jobs):
            if number % 2 == 0:
                assert received[number] == whole
            else:
                assert received[number] == whole[:2]
                await extend(worker, claim, range(1, 3))
                assert (await asyncio.to_thread(service.stream, job_id, 1))[1:] == whole[2:]
    said = [what for _, what in ends]
    assert said.count("OK") == 6
    assert all(re.search("^UNAVAILABLE: .*from_chunk=1", what) for what in said if what != "OK")
    seen(
        "health flipped first; 6 streams finished, 6 ended UNAVAILABLE with from_chunk=1 and went on elsewhere; exit 0"
    )


def elsewhere(service: QuickService) -> Any:
    """Settings of a second gateway."""
    return service.config.gateway.model_copy(update={"metrics_port": 0, "drain_s": 30.0})


@pytest.mark.parametrize("key", ["", "alice.wrong"], ids=["missing", "wrong"])
@pytest.mark.fault(number=22, fault="credentials missing or wrong, on each of the API's methods")
async def test_every_method_asks_for_a_key(service: QuickService, tmp_path: Path, seen: Seen, key: str) -> None:
    _, entry = new_key("alice", "a", frozenset({Scope.SUBMIT, Scope.READ, Scope.CANCEL}))
    keys = tmp_path / "keys.yaml"
    await asyncio.to_thread(keys.write_text, yaml.safe_dump({"keys": [entry.model_dump(mode="json")]}))
    options = elsewhere(service).model_copy(update={"api_keys_file": str(keys)})
    gateway = GatewayProcess(service.config.model_copy(update={"gateway": options}), tmp_path / "log")
    metadata = (("authorization", f"Bearer {key}"),) if key else ()
    methods = pb.DESCRIPTOR.services_by_name["VideoGeneration"].methods
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        stub: Any = VideoGenerationStub(channel)
        for method in methods:
            request = getattr(pb, method.input_type.name)()
            argument = iter([request]) if method.client_streaming else request
            call = getattr(stub, method.name)(argument, metadata=metadata)
            answer = anext(aiter(call)) if method.server_streaming else call
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await answer
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED, method.name
        health: Any = health_pb2_grpc.HealthStub(channel)
        checked = await health.Check(health_pb2.HealthCheckRequest())
        assert checked.status == health_pb2.HealthCheckResponse.SERVING
    gateway.close()
    seen(f"{len(methods)} of {len(methods)} methods UNAUTHENTICATED; health stays open")


@pytest.mark.fault(number=16, fault="a reader's host vanishes in mid-stream: nothing is closed, nothing answers")
def test_a_vanished_reader_is_forgotten_within_the_keepalive(
    service: QuickService, vanished: Vanished, seen: Seen
) -> None:
    wait_until(lambda: service.gateway_streams() == 0, 3 * KEEPALIVE_S)
    lasted_s = time.monotonic() - vanished.since_s

    async def go_on() -> None:
        async with by_hand(service) as worker:
            await extend(worker, vanished.claim, range(1, 3))

    asyncio.run(go_on())
    resumed = service.stream(vanished.job_id, 1)
    assert vanished.received + resumed[1:] == [b"init", *(fragment(index, 100_000) for index in range(3))]
    seen(f"its handler was gone within {lasted_s:.0f} s; from_chunk=1 continued byte-identically")
