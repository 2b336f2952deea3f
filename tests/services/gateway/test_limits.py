"""What one client may take: beyond each limit it is refused, and everybody else is served."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from helios.v1 import video_generation_pb2 as pb
from helios.v1.video_generation_pb2_grpc import VideoGenerationStub
from helios_services.client import AsyncHeliosClient, HeliosError
from helios_services.config import ServiceConfig
from helios_services.gateway.grpc import limits
from helios_services.gateway.grpc.requests import MAX_ENTRIES
from helios_services.gateway.server import Gateway
from support.gateway import serving
from support.raw_http2 import RawClient
from support.waiting import until

EXHAUSTED, INVALID = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT


@asynccontextmanager
async def stub_of(gateway: Gateway, *options: tuple[str, int]) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}", options=options) as channel:
        yield VideoGenerationStub(channel)


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    code: grpc.StatusCode = caught.value.code()
    return code


async def answered(stub: Any) -> grpc.StatusCode:
    call = stub.ListModels(pb.ListModelsRequest())
    code: grpc.StatusCode = await call.code()
    return code


def request_of(size: int) -> pb.GetJobRequest:
    """A request of exactly `size` bytes."""
    request = pb.GetJobRequest(job_id="x" * (size - 8))
    request.job_id += "x" * (size - request.ByteSize())
    assert request.ByteSize() == size
    return request


async def test_a_message_at_the_limit_is_read_and_one_byte_more_is_not(gateway: Gateway, config: ServiceConfig) -> None:
    limit = config.gateway.max_message_bytes
    async with stub_of(gateway) as stub:
        assert await code_of(stub.GetJob(request_of(limit))) is grpc.StatusCode.NOT_FOUND
        assert await code_of(stub.GetJob(request_of(limit + 1))) is EXHAUSTED
        assert (await stub.ListModels(pb.ListModelsRequest())).models


async def test_a_message_that_is_announced_too_large_is_refused_before_it_comes(gateway: Gateway) -> None:
    """The attack: many calls that each begin a message of many MiB, which the server would keep until it is whole."""

    def begin() -> str:
        with RawClient(gateway.port) as client:
            client.greet()
            stream = client.begin("SubmitJob")
            client.http2.send_data(stream, b"\0" + (2 * 1024**2).to_bytes(4, "big") + bytes(1000), end_stream=False)
            client.flush()
            return client.status(stream)

    assert await asyncio.to_thread(begin) == str(EXHAUSTED.value[0])


async def test_metadata_beyond_the_limit_is_refused(gateway: Gateway) -> None:
    async with stub_of(gateway) as stub:
        half = (("x-note", "n" * (limits.MAX_METADATA_BYTES // 2)),)
        for _ in range(20):  # between a soft and a hard limit, refusals would be a matter of luck
            assert (await stub.ListModels(pb.ListModelsRequest(), metadata=half)).models
        whole = (("x-note", "n" * limits.MAX_METADATA_BYTES),)
        assert await code_of(stub.ListModels(pb.ListModelsRequest(), metadata=whole)) is EXHAUSTED
        assert (await stub.ListModels(pb.ListModelsRequest())).models


async def test_a_huge_value_does_not_make_a_huge_answer(gateway: Gateway) -> None:
    """Statuses travel in metadata, of which clients take 8 KiB: beyond that the code itself would be lost."""
    async with stub_of(gateway) as stub:
        for letter in ("x", "é", "\U0001f30a", "%", "\0"):
            job_id = letter * 200_000
            call = stub.GetJob(pb.GetJobRequest(job_id=job_id))
            assert await code_of(call) is grpc.StatusCode.NOT_FOUND
            labels = {f"{n:02}{letter * 300}": letter * 1000 for n in range(16)}
            submit = pb.SubmitJobRequest(
                labels=labels, idempotency_key=letter * 500, params=pb.GenerationParams(prompt=letter * 9000)
            )
            call = stub.SubmitJob(submit)
            assert await code_of(call) is INVALID
            details = dict(await call.trailing_metadata())["grpc-status-details-bin"]
            assert len(details) < 4500


async def test_lists_of_absurd_length_are_refused_by_name(gateway: Gateway) -> None:
    async with stub_of(gateway) as stub:
        schedule = [pb.ScheduledPrompt()] * (MAX_ENTRIES + 1)
        call = stub.SubmitJob(pb.SubmitJobRequest(params=pb.GenerationParams(prompt_schedule=schedule)))
        assert await code_of(call) is INVALID
        assert "params.prompt_schedule: '1001 entries'" in await call.details()
        assert await code_of(stub.ListJobs(pb.ListJobsRequest(states=[pb.JOB_STATE_QUEUED] * 2000))) is INVALID
        session = stub.Interact(
            iter([pb.InteractRequest(start=pb.SubmitJobRequest(labels=dict.fromkeys(map(str, range(1001)), "")))])
        )
        assert await code_of(session.read()) is INVALID


async def test_calls_beyond_the_limit_are_refused_at_once(config: ServiceConfig) -> None:
    async with serving(config, max_concurrent_rpcs=3) as gateway, stub_of(gateway) as stub:
        job = await stub.SubmitJob(pb.SubmitJobRequest(params=pb.GenerationParams(prompt="a lake")))
        watchers = [stub.WatchJob(pb.WatchJobRequest(job_id=job.id)) for _ in range(3)]
        for watcher in watchers:
            await watcher.read()
        assert await code_of(stub.ListModels(pb.ListModelsRequest())) is EXHAUSTED
        watchers[0].cancel()

        async def taken() -> bool:
            return await answered(stub) is grpc.StatusCode.OK

        await until(taken)
        for watcher in watchers:
            watcher.cancel()


async def test_a_connection_carries_a_bounded_number_of_calls(gateway: Gateway) -> None:
    def told() -> int:
        with RawClient(gateway.port) as client:
            client.greet()
            while client.http2.remote_settings.max_concurrent_streams > limits.STREAMS:
                assert client.events() is not None
            return int(client.http2.remote_settings.max_concurrent_streams)

    assert await asyncio.to_thread(told) == limits.STREAMS


def test_a_gateway_takes_all_descriptors_that_it_can_have() -> None:
    code = (
        "import resource; from helios_services.gateway.main import raise_descriptor_limit;"
        "most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; resource.setrlimit(resource.RLIMIT_NOFILE, (256, most));"
        "raise_descriptor_limit(); print(resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "True"


async def test_a_client_that_pings_too_often_is_sent_away_and_others_are_not(
    gateway: Gateway, client: AsyncHeliosClient
) -> None:
    job = await client.submit("a lake")
    watch = client.watch(job.id)
    await anext(watch)

    def abuse() -> tuple[int, bytes] | None:
        with RawClient(gateway.port) as abuser:
            abuser.greet()
            for number in range(limits.MAX_PING_STRIKES + 3):
                abuser.http2.ping(number.to_bytes(8, "big"))
            abuser.flush()
            return abuser.goodbye()

    said = await asyncio.to_thread(abuse)
    assert said == (int(ErrorCodes.ENHANCE_YOUR_CALM), b"too_many_pings")
    await client.cancel(job.id)  # the other client's connection and stream are as they were
    assert [event.state async for event in watch][-1] == pb.JOB_STATE_CANCELLED


async def test_a_connection_that_says_nothing_is_closed(config: ServiceConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_S", 1)
    async with serving(config) as gateway, stub_of(gateway) as stub:

        def wait_silently() -> bytes:
            with RawClient(gateway.port) as mute:
                return b"".join(iter(lambda: mute.socket.recv(1 << 16), b""))

        await asyncio.to_thread(wait_silently)  # its end is the server's doing, or the socket's timeout raises
        # a slow machine may take longer than that to shake hands: then the next connection does
        assert (await stub.ListModels(pb.ListModelsRequest(), wait_for_ready=True)).models


async def test_an_idle_connection_is_closed_and_the_next_call_opens_another(
    config: ServiceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "IDLE_S", 1)
    async with serving(config) as gateway, stub_of(gateway) as stub:
        assert (await stub.ListModels(pb.ListModelsRequest())).models

        def idle() -> tuple[int, bytes] | None:
            for _ in range(20):
                with RawClient(gateway.port) as client:
                    client.greet()
                    try:
                        assert client.status(client.call("ListModels", b"")) == "0"
                    except (OSError, ProtocolError):
                        continue  # it was idle for too long before the call
                    return client.goodbye()
            return None

        assert await asyncio.to_thread(idle) is not None
        assert (await stub.ListModels(pb.ListModelsRequest())).models


async def test_old_connections_take_no_new_calls_and_finish_those_they_have(
    config: ServiceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "AGE_S", 1)
    async with serving(config) as gateway, AsyncHeliosClient(f"127.0.0.1:{gateway.port}") as client:
        job = await client.submit("a lake")
        watch = client.watch(job.id)
        await anext(watch)

        def grow_old() -> tuple[int, bytes] | None:
            with RawClient(gateway.port) as other:
                other.greet()
                return other.goodbye()

        for _ in range(2):  # the watcher's connection is older than the second of these
            assert await asyncio.to_thread(grow_old) == (int(ErrorCodes.NO_ERROR), b"max_age")
        await client.cancel(job.id)
        assert [event.state async for event in watch][-1] == pb.JOB_STATE_CANCELLED


async def test_malformed_bytes_are_the_callers_fault(gateway: Gateway, client: AsyncHeliosClient) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        path = "/helios.v1.VideoGeneration"
        unary: Any = channel.unary_unary(f"{path}/SubmitJob")
        upload: Any = channel.stream_unary(f"{path}/UploadMedia")
        watch: Any = channel.unary_stream(f"{path}/WatchJob")
        assert await code_of(unary(b"\xff\xff\xff")) is INVALID
        assert await code_of(unary(b"\x0a\x02\xff\xfe")) is INVALID  # text that is no UTF-8
        assert await code_of(upload(iter([b"\x0a\xff"]))) is INVALID
        assert await code_of(watch(b"\x0a\xff").read()) is INVALID
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        reflect: Any = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        assert await code_of(check(b"\x0a\xff")) is INVALID
        assert await code_of(reflect(iter([b"\x0a\xff"])).read()) is INVALID
    with pytest.raises(HeliosError):
        await client.get("nope")
    assert (await client.submit("a lake")).state == pb.JOB_STATE_QUEUED
