"""The client: to whom it says its key, what it takes up again, and what it leaves behind."""

import asyncio
import errno
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from helios.v1 import video_generation_pb2 as pb
from helios.v1.video_generation_pb2_grpc import (
    VideoGenerationServicer,
    VideoGenerationStub,
    add_VideoGenerationServicer_to_server,
)
from helios_services.cli.errors import UserError
from helios_services.cli.remote import _leave, download
from helios_services.client import AsyncHeliosClient, Connection, HeliosClient, HeliosError, courses
from helios_services.client.connection import is_loopback
from helios_services.config import ServiceConfig
from helios_services.gateway.server import Gateway
from services.gateway.conftest import Worker
from support.processes import HELIOS
from support.waiting import until

HEEDING = (
    sys.executable,
    "-c",
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])",
)
"""Starts a command as a terminal does: what runs behind a script may have been told to ignore an interrupt.

A function that is run between fork and exec hangs where gRPC's threads hold a lock.
"""

HERE = ("localhost:50051", "LocalHost", "127.0.0.1:50051", "127.9.8.7:1", "[::1]:50051", "127.0.0.1")
ELSEWHERE = (
    "127.evil.example:443",
    "127.0.0.1.evil.example:443",
    "localhost.evil.example:443",
    "127.0.0.1@evil.example:443",
    "evil.example:127",
    "evil.example/127.0.0.1:443",
    "dns:///127.0.0.1:443",
    "ipv4:127.0.0.1:1,8.8.8.8:443",
    "8.8.8.8:443",
    "127.1:443",
    "0.0.0.0:443",
    "[::ffff:8.8.8.8]:443",
    "[localhost]:443:443",
    "",
)


@pytest.mark.parametrize("target", HERE)
def test_this_machine_may_be_told_a_key(target: str) -> None:
    assert is_loopback(target)
    Connection(api_key="k").channel(target).close()


@pytest.mark.parametrize("target", ELSEWHERE)
def test_nobody_else_is_told_a_key_in_the_clear(target: str) -> None:
    assert not is_loopback(target)
    with pytest.raises(ValueError, match=r"is not sent to .* in the clear; use TLS"):
        Connection(api_key="k").channel(target)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_this_machine_is_not_reached_through_a_proxy(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with AsyncHeliosClient(f"{host}:{gateway.port}") as client:
        assert (await client.submit("a lake")).state == pb.JOB_STATE_QUEUED
        job = await client.submit("a lake")

    def blocking() -> str:
        with HeliosClient(f"{host}:{gateway.port}") as client:
            return client.get(job.id).id

    assert await asyncio.to_thread(blocking) == job.id


Base: Any = VideoGenerationServicer
"""Its stubs want all calls; those that are not here are UNIMPLEMENTED."""


class Breaking(Base):  # type: ignore[misc]
    """Breaks off after `each` messages, as a gateway that is restarted does; `left` says how often."""

    def __init__(self, messages: int, each: int, left: int) -> None:
        self._messages, self._each, self.left = messages, each, left
        self.asked: list[Any] = []

    async def _some(self, first: int, context: Any) -> AsyncIterator[int]:
        for count, number in enumerate(range(first, self._messages)):
            if count == self._each and self.left:
                self.left -= 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "going")
            yield number

    async def WatchJob(self, request: pb.WatchJobRequest, context: Any) -> AsyncIterator[pb.JobEvent]:
        """Each call begins with the job as it is: the last that came before."""
        self.asked.append(request)
        first = max(len(self.asked) - 1, 0) * (self._each - 1)
        async for number in self._some(first, context):
            yield pb.JobEvent(job=pb.Job(id=request.job_id, revision=number))

    async def DownloadVideo(
        self, request: pb.DownloadVideoRequest, context: Any
    ) -> AsyncIterator[pb.DownloadVideoResponse]:
        """One byte a message; the first has none."""
        self.asked.append(request)
        yield pb.DownloadVideoResponse(total_bytes=self._messages)
        async for number in self._some(request.offset, context):
            yield pb.DownloadVideoResponse(data=bytes([number]))


@asynccontextmanager
async def served(servicer: Breaking) -> AsyncIterator[str]:
    server = grpc.aio.server()
    add_VideoGenerationServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courses, "RECONNECT_WAIT_S", 0.001)


@pytest.mark.usefixtures("at_once")
async def test_a_watch_goes_on_after_a_restart_and_says_nothing_twice() -> None:
    async with served(Breaking(messages=10, each=3, left=4)) as target, AsyncHeliosClient(target) as client:
        assert [job.revision async for job in client.watch("j")] == list(range(10))
    async with served(Breaking(messages=10, each=3, left=4)) as target:

        def blocking() -> list[int]:
            with HeliosClient(target) as client:
                return [job.revision for job in client.watch("j")]

        assert await asyncio.to_thread(blocking) == list(range(10))


@pytest.mark.usefixtures("at_once")
async def test_a_download_goes_on_at_the_byte_where_it_broke(tmp_path: Path) -> None:
    servicer = Breaking(messages=100, each=30, left=3)
    async with served(servicer) as target, AsyncHeliosClient(target) as client:
        assert await client.download("j", tmp_path / "a.mp4") == 100
    assert [request.offset for request in servicer.asked] == [0, 30, 60, 90]
    assert (tmp_path / "a.mp4").read_bytes() == bytes(range(100))
    async with served(Breaking(messages=100, each=30, left=3)) as target:

        def blocking() -> int:
            with HeliosClient(target) as client:
                return client.download("j", tmp_path / "b.mp4")

        assert await asyncio.to_thread(blocking) == 100
    assert (tmp_path / "b.mp4").read_bytes() == bytes(range(100))


@pytest.mark.usefixtures("at_once")
async def test_a_download_that_does_not_end_leaves_no_cut_file(tmp_path: Path) -> None:
    kept = tmp_path / "kept.mp4"
    kept.write_bytes(b"of before")
    servicer = Breaking(messages=100, each=0, left=1000)
    async with served(servicer) as target, AsyncHeliosClient(target) as client:
        for file in (kept, tmp_path / "new.mp4"):
            servicer.asked.clear()
            with pytest.raises(HeliosError, match="going"):
                await client.download("j", file)
            assert len(servicer.asked) == courses.RECONNECTS + 1
    assert [file.name for file in tmp_path.iterdir()] == ["kept.mp4"]
    assert kept.read_bytes() == b"of before"


async def test_a_real_gateway_is_watched_over_its_restart(config: ServiceConfig, worker: Worker) -> None:
    first = Gateway(config)
    await first.start()
    again = config.model_copy(update={"gateway": config.gateway.model_copy(update={"port": first.port})})
    async with AsyncHeliosClient(f"127.0.0.1:{first.port}") as client:
        job = await client.submit("a lake", num_frames=33)
        changes = client.watch(job.id)
        assert (await anext(changes)).state == pb.JOB_STATE_QUEUED
        rest = asyncio.create_task(states(changes))
        await first.stop()
        second = Gateway(again)
        await second.start()
        await worker.store.cancel(job.id)
        assert await rest == [pb.JOB_STATE_CANCELLED]
        await second.stop()


async def states(changes: AsyncIterator[pb.Job]) -> list[int]:
    return [job.state async for job in changes]


# ---- who leaves ----


@pytest.mark.parametrize("cancel", [True, False])
async def test_a_call_may_take_its_job_with_it(
    gateway: Gateway, client: AsyncHeliosClient, worker: Worker, cancel: bool
) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        stub: Any = VideoGenerationStub(channel)
        job = pb.SubmitJobRequest(params=pb.GenerationParams(prompt="a lake", num_frames=66))
        call = stub.GenerateVideo(pb.GenerateVideoRequest(job=job, cancel_on_disconnect=cancel))
        job_id = (await call.read()).job.id
        claim = await worker.claim()
        await worker.append(claim, 0, size=10)
        assert (await call.read()).chunk.init_segment
        call.cancel()
    read = gateway.metrics.registry.get_sample_value
    await until(lambda: read("helios_grpc_active_requests", {"method": "GenerateVideo"}) == 0)

    async def state() -> int:
        return (await client.get(job_id)).state

    if cancel:

        async def cancelled() -> bool:
            return await state() == pb.JOB_STATE_CANCELLED

        await until(cancelled)
    else:
        assert await state() == pb.JOB_STATE_RUNNING


async def test_a_gateway_that_ends_takes_no_job_with_it(config: ServiceConfig, worker: Worker) -> None:
    gateway = Gateway(config)
    await gateway.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        stub: Any = VideoGenerationStub(channel)
        job = pb.SubmitJobRequest(params=pb.GenerationParams(prompt="a lake", num_frames=66))
        call = stub.GenerateVideo(pb.GenerateVideoRequest(job=job, cancel_on_disconnect=True))
        job_id = (await call.read()).job.id
        await gateway.stop()
    assert (await worker.store.get(job_id)).ended_s is None


@pytest.fixture
def command(gateway: Gateway, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """`helios generate --server`, in progress."""
    arguments = ["generate", "a lake", "-o", str(tmp_path / "out.mp4"), "--server", f"127.0.0.1:{gateway.port}"]
    process = subprocess.Popen([*HEEDING, HELIOS, *arguments], stderr=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.wait()
    if process.stderr is not None:
        process.stderr.close()


async def test_an_interrupted_command_cancels_its_job(
    command: "subprocess.Popen[str]", client: AsyncHeliosClient, gateway: Gateway, tmp_path: Path
) -> None:
    read = gateway.metrics.registry.get_sample_value
    await until(lambda: read("helios_grpc_active_requests", {"method": "StreamVideo"}) == 1)
    command.send_signal(signal.SIGINT)
    _, said = await asyncio.to_thread(command.communicate)
    (job,) = [job async for job in client.list()]
    assert job.state == pb.JOB_STATE_CANCELLED
    assert f"job {job.id} is cancelled" in said
    assert command.returncode == 130
    assert list(tmp_path.glob("*.mp4*")) == []


def test_a_job_that_cannot_be_cancelled_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with HeliosClient("127.0.0.1:1") as client, pytest.raises(SystemExit):
        _leave(client, "j1", "example:1")
    assert "helios jobs cancel j1 --server example:1" in capsys.readouterr().err


# ---- where a video goes ----


async def test_a_video_is_downloaded_on_the_command_line(
    gateway: Gateway, client: AsyncHeliosClient, worker: Worker, tmp_path: Path
) -> None:
    job = await client.submit("a lake", num_frames=33)
    claim = await worker.claim()
    await worker.append(claim, 0, size=10)
    await worker.publish(claim, b"video", tmp_path)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        server = ["--server", f"127.0.0.1:{gateway.port}"]
        return subprocess.run([HELIOS, *arguments, *server], capture_output=True, text=True)

    done = await asyncio.to_thread(run, "jobs", "download", job.id, "-o", str(tmp_path / "a.mp4"))
    assert (done.returncode, (tmp_path / "a.mp4").read_bytes()) == (0, b"video")
    for bad, why in ((tmp_path, "is a folder"), (tmp_path / "none" / "a.mp4", "does not exist")):
        for command in (("jobs", "download", job.id), ("generate", "a lake")):
            done = await asyncio.to_thread(run, *command, "-o", str(bad))
            assert (done.returncode, done.stderr.count("\n")) == (1, 1)
            assert why in done.stderr
    assert len([each async for each in client.list()]) == 1  # nothing was generated for them


def test_a_full_disk_is_told_in_one_line_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: HeliosClient, job_id: str, target: Path) -> int:
        with courses.whole(target) as file:
            file.write(b"x")
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(HeliosClient, "download", full)
    with HeliosClient("127.0.0.1:1") as client, pytest.raises(UserError) as caught:
        download(client, "j1", tmp_path / "part", tmp_path / "a.mp4")
    said = "a.mp4: cannot be written: No space left on device; the server keeps it: helios jobs download j1"
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []
