"""The API over a real Redis: submission, listing, delivery, health, shutdown."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from prometheus_client import generate_latest

from helios.v1 import video_generation_pb2 as pb
from helios.v1.video_generation_pb2_grpc import VideoGenerationStub
from helios_services.client import AsyncHeliosClient, HeliosClient, HeliosError
from helios_services.config import RedisConfig, ServiceConfig
from helios_services.gateway import server
from helios_services.gateway.grpc.door import LIVENESS
from helios_services.gateway.grpc.handlers import SERVICE
from helios_services.gateway.server import Gateway
from helios_services.jobs.records import JobFailure
from services.gateway.conftest import Worker, fragment
from support.gateway import serving

HealthStatus = health_pb2.HealthCheckResponse


def test_the_gateway_needs_neither_ray_nor_torch() -> None:
    code = "import sys, helios_services.gateway.main; print({'ray', 'torch', 'av', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


async def test_submitted_jobs_come_back_with_defaults_and_a_seed(client: AsyncHeliosClient) -> None:
    job = await client.submit("a lake", labels={"team": "x"}, priority="batch", num_frames=34)
    assert (job.state, job.model, job.chunks_total) == (pb.JOB_STATE_QUEUED, "helios-distilled", 2)
    assert (job.params.height, job.params.width, job.params.fps) == (384, 640, 24)
    assert list(job.params.pyramid_steps) == [2, 2, 2]
    assert job.params.HasField("seed")
    assert (dict(job.labels), job.priority) == ({"team": "x"}, pb.PRIORITY_BATCH)
    assert await client.get(job.id) == job
    assert (await client.submit("a lake")).params.seed != job.params.seed


async def test_idempotency_key_gives_the_same_job(client: AsyncHeliosClient) -> None:
    jobs = await asyncio.gather(*(client.submit("a lake", idempotency_key="k") for _ in range(20)))
    assert len({job.id for job in jobs}) == 1  # also when the server chose the seed
    with pytest.raises(HeliosError) as caught:
        await client.submit("a lake", seed=2, idempotency_key="k")
    assert caught.value.code is grpc.StatusCode.ALREADY_EXISTS


async def test_full_queue_says_when_to_come_back(client: AsyncHeliosClient) -> None:
    for _ in range(5):
        await client.submit("a lake")
    with pytest.raises(HeliosError, match="full") as caught:
        await client.submit("a lake")
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.retry_after_s
    assert caught.value.retry_after_s > 0


async def test_listing_pages_and_tokens_are_bound_to_filters(client: AsyncHeliosClient, gateway: Gateway) -> None:
    ids = [(await client.submit("a lake")).id for _ in range(5)]
    await client.cancel(ids[2])
    assert [job.id async for job in client.list(page_size=2)] == ids[::-1]
    assert [job.id async for job in client.list(page_size=1, states=("cancelled",))] == [ids[2]]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        stub: Any = VideoGenerationStub(channel)
        token = (await stub.ListJobs(pb.ListJobsRequest(page_size=2))).next_page_token
        for filters in ({"states": [pb.JOB_STATE_QUEUED]}, {"model": "another"}, {"dead_letters": True}):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ListJobs(pb.ListJobsRequest(page_token=token, **filters))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_no_answer_is_larger_than_clients_take(client: AsyncHeliosClient, gateway: Gateway) -> None:
    """Clients of gRPC take 4 MiB a message unless told otherwise; here are 9 MiB of labels and prompts in two calls."""
    labels = {f"{number:02d}{'k' * 62}": "é" * 256 for number in range(16)}
    params: dict[str, Any] = {"prompt": "é" * 8000, "labels": labels}
    ids = set()
    for _ in range(250):
        job = await client.submit(**params)
        await client.cancel(job.id)
        ids.add(job.id)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        stub: Any = VideoGenerationStub(channel)
        listed, token, pages = [], "", 0
        while token or not pages:
            page = await stub.ListJobs(pb.ListJobsRequest(page_size=500, page_token=token))
            assert page.ByteSize() < 4 * 1024**2
            listed += page.jobs
            token, pages = page.next_page_token, pages + 1
        assert {job.id for job in listed} == ids
        assert pages > 1
        assert not any(job.params.prompt for job in listed)
        assert all(job.params.seed and job.labels == labels for job in listed)


async def test_chunks_arrive_as_they_are_made_in_order_and_whole(client: AsyncHeliosClient, worker: Worker) -> None:
    job = await client.submit("a lake", num_frames=66)
    stream = client.stream(job.id)
    first = asyncio.ensure_future(anext(stream))
    claim = await worker.claim()
    await worker.append(claim, 0)
    init, chunk = await first, await anext(stream)
    assert (init.data, init.info) == (b"init", None)
    assert chunk.data == fragment(0)
    assert chunk.info is not None
    assert chunk.info.stages.denoise.ToMilliseconds() == 500
    second = asyncio.ensure_future(anext(stream))
    await worker.append(claim, 1)
    assert (await second).data == fragment(1)
    assert [segment async for segment in stream] == []
    resumed = [segment async for segment in client.stream(job.id, from_chunk=1)]
    assert [segment.data for segment in resumed] == [b"init", fragment(1)]


async def test_messages_stay_under_the_part_size(gateway: Gateway, client: AsyncHeliosClient, worker: Worker) -> None:
    job = await client.submit("a lake", num_frames=33)
    await worker.append(await worker.claim(), 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        stub: Any = VideoGenerationStub(channel)
        parts = [part async for part in stub.StreamVideo(pb.StreamVideoRequest(job_id=job.id))]
    assert [len(part.data) for part in parts] == [4, 2**20, 2**20, 2_500_000 - 2**21]
    assert [part.last_part for part in parts] == [True, False, False, True]


@pytest.mark.parametrize("end", ["cancel", "fail"])
async def test_a_stream_ends_with_its_job(client: AsyncHeliosClient, worker: Worker, end: str) -> None:
    job = await client.submit("a lake", num_frames=66)
    claim = await worker.claim()
    await worker.append(claim, 0, size=10)
    stream = client.stream(job.id)
    assert [(await anext(stream)).data for _ in range(2)] == [b"init", fragment(0, 10)]
    rest = asyncio.ensure_future(anext(stream))
    if end == "cancel":
        await client.cancel(job.id)
    else:
        await worker.store.fail(claim.lease, JobFailure(reason="GENERATION_FAILED", message="no luck"))
    with pytest.raises(HeliosError) as caught:
        await rest
    expected = {
        "cancel": (grpc.StatusCode.CANCELLED, "JOB_CANCELLED"),
        "fail": (grpc.StatusCode.ABORTED, "GENERATION_FAILED"),
    }
    assert (caught.value.code, caught.value.reason) == expected[end]


async def test_watch_sees_progress_and_the_end(client: AsyncHeliosClient, worker: Worker, tmp_path: Path) -> None:
    job = await client.submit("a lake", num_frames=33)
    watch = client.watch(job.id)
    assert (await anext(watch)).state == pb.JOB_STATE_QUEUED
    claim = await worker.claim()
    await worker.append(claim, 0, size=10)
    await worker.publish(claim, b"video", tmp_path)
    seen = [change async for change in watch]
    assert seen[-1].state == pb.JOB_STATE_SUCCEEDED
    assert [change.revision for change in seen] == sorted({change.revision for change in seen})
    with pytest.raises(HeliosError) as caught:
        await client.cancel(job.id)
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION


async def test_download_from_any_byte_and_not_before_success(
    client: AsyncHeliosClient, gateway: Gateway, worker: Worker, tmp_path: Path
) -> None:
    job = await client.submit("a lake", num_frames=33)
    with pytest.raises(HeliosError, match="queued") as caught:
        await client.download(job.id, tmp_path / "early")
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    claim, video = await worker.claim(), bytes(range(256)) * 10_000
    await worker.append(claim, 0, size=10)
    await worker.publish(claim, video, tmp_path)
    assert await client.download(job.id, tmp_path / "whole") == len(video)
    assert (tmp_path / "whole").read_bytes() == video
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        stub: Any = VideoGenerationStub(channel)
        request = pb.DownloadVideoRequest(job_id=job.id, offset=2_000_000)
        parts = [part async for part in stub.DownloadVideo(request)]
    assert parts[0].total_bytes == len(video)
    assert b"".join(part.data for part in parts) == video[2_000_000:]


async def test_generate_video_is_job_chunks_job(
    gateway: Gateway, client: AsyncHeliosClient, worker: Worker, tmp_path: Path
) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        stub: Any = VideoGenerationStub(channel)
        params = pb.GenerationParams(prompt="a lake", num_frames=33)
        call = stub.GenerateVideo(pb.GenerateVideoRequest(job=pb.SubmitJobRequest(params=params)))
        stream = aiter(call)
        accepted = await anext(stream)
        claim = await worker.claim()
        assert claim.job.id == accepted.job.id
        await worker.append(claim, 0, size=10)
        await worker.publish(claim, b"video", tmp_path)
        events = [event async for event in stream]
    assert [event.WhichOneof("event") for event in events] == ["chunk", "chunk", "job"]
    assert events[-1].job.state == pb.JOB_STATE_SUCCEEDED


async def test_blocking_client_does_the_same(gateway: Gateway, worker: Worker, tmp_path: Path) -> None:
    def use(target: str) -> tuple[str, list[pb.Job]]:
        with HeliosClient(target) as client:
            assert client.models()[0].size_multiple == 64
            job = client.submit("a lake", num_frames=33)
            assert client.get(job.id) == job
            return job.id, list(client.list(page_size=1))

    target = f"127.0.0.1:{gateway.port}"
    job_id, listed = await asyncio.to_thread(use, target)
    assert [job.id for job in listed] == [job_id]
    claim = await worker.claim()
    await worker.append(claim, 0)
    await worker.publish(claim, b"video", tmp_path)

    def receive() -> list[bytes]:
        with HeliosClient(target) as client:
            segments = list(client.stream(job_id))
            assert [job.state for job in client.watch(job_id)] == [pb.JOB_STATE_SUCCEEDED]
            assert client.download(job_id, tmp_path / "file") == 5
            return [segment.data for segment in segments]

    assert await asyncio.to_thread(receive) == [b"init", fragment(0)]


async def test_health_and_reflection(gateway: Gateway) -> None:
    target = f"127.0.0.1:{gateway.port}"
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE.full_name):
            assert (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status == HealthStatus.SERVING
        changes = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await changes.read()).status == HealthStatus.SERVING
        await gateway._grpc.serving(False)
        assert (await changes.read()).status == HealthStatus.NOT_SERVING

    def methods() -> set[str]:
        with grpc.insecure_channel(target) as channel:
            pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
            return set(pool.FindServiceByName(SERVICE.full_name).methods_by_name)

    assert {"SubmitJob", "StreamVideo", "Interact"} <= await asyncio.to_thread(methods)


async def test_without_redis_health_is_down_and_calls_are_unavailable(config: ServiceConfig) -> None:
    dead = RedisConfig(url="redis://127.0.0.1:1/0", socket_timeout_s=0.2)
    async with (
        serving(config.model_copy(update={"redis": dead})) as gateway,
        grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel,
        AsyncHeliosClient(f"127.0.0.1:{gateway.port}") as client,
    ):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == HealthStatus.NOT_SERVING
        alive = await stub.Check(health_pb2.HealthCheckRequest(service=LIVENESS))
        assert alive.status == HealthStatus.SERVING  # restarting gateways would not bring Redis back
        with pytest.raises(HeliosError) as caught:
            await client.submit("a lake")
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        assert caught.value.retry_after_s


@pytest.mark.parametrize("stalled_s", [0.0, 100.0])
async def test_shutdown_ends_streams_with_a_resume_point(
    config: ServiceConfig, worker: Worker, monkeypatch: pytest.MonkeyPatch, stalled_s: float
) -> None:
    """Also if the event loop stands still, by its clock, until the time for all of it is over."""
    monkeypatch.setattr(server, "DRAIN_MARGIN_S", 60.0)  # what is told to end is not cut off before it has
    options = config.gateway.model_copy(update={"drain_s": 60.5})
    gateway = Gateway(config.model_copy(update={"gateway": options}))
    await gateway.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        stub: Any = VideoGenerationStub(channel)
        params = pb.GenerationParams(prompt="a lake", num_frames=66)
        job = await stub.SubmitJob(pb.SubmitJobRequest(params=params))
        await worker.append(await worker.claim(), 0, size=10)
        stream = stub.StreamVideo(pb.StreamVideoRequest(job_id=job.id))
        assert [(await stream.read()).data for _ in range(2)] == [b"init", fragment(0, 10)]
        stopping = asyncio.create_task(gateway.stop())
        await asyncio.sleep(0.1)
        loop = asyncio.get_running_loop()
        clock = loop.time
        monkeypatch.setattr(loop, "time", lambda: clock() + stalled_s)
        with pytest.raises(grpc.aio.AioRpcError, match="from_chunk=1") as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await stopping


async def test_metrics_count_calls_and_show_the_queue(gateway: Gateway, client: AsyncHeliosClient) -> None:
    await client.submit("a lake", priority="batch")
    cancelled = await client.submit("a lake", priority="batch")
    for _ in range(2):
        await client.cancel(cancelled.id)
    with pytest.raises(HeliosError):
        await client.get("nope")
    await gateway._look_at_redis()
    text = generate_latest(gateway.metrics.registry).decode()
    assert 'helios_queue_depth{priority="batch"} 1.0' in text
    assert 'helios_grpc_requests_total{code="OK",method="SubmitJob"} 2.0' in text
    assert 'helios_grpc_requests_total{code="NOT_FOUND",method="GetJob"} 1.0' in text
    assert 'helios_grpc_active_requests{method="SubmitJob"} 0.0' in text
    assert 'helios_jobs_total{state="cancelled"} 1.0' in text
