"""Prompts that change while a job runs, and live sessions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from helios.v1 import video_generation_pb2 as pb
from helios_services.client import AsyncHeliosClient, Connection, HeliosError
from helios_services.config import JobsConfig, ServiceConfig
from helios_services.gateway.calls import live_session
from helios_services.gateway.guard.caller import Scope
from helios_services.gateway.guard.keys import new_key
from helios_services.gateway.server import Gateway
from helios_services.jobs.keys import Keys
from helios_services.jobs.records import Control, Start, Verdict
from services.gateway.conftest import Worker, fragment
from services.jobs.conftest import let_session_lapse
from support.gateway import serving
from support.redis_clients import async_client
from support.waiting import until

SIZE = 1000
GRACE_S = 600.0
"""No session lapses by itself; tests let it."""
SIGN_S = 0.1
"""A live stream gives signs of life so often, where they are waited for."""


@pytest.fixture
def config(config: ServiceConfig) -> ServiceConfig:
    jobs = JobsConfig(
        max_prompt_updates=3, session_grace_s=GRACE_S, live_window_chunks=3, live_lead_chunks=2, lease_s=600.0
    )
    return config.model_copy(update={"jobs": jobs})


async def test_a_prompt_update_names_the_chunk_it_takes_effect_at(client: AsyncHeliosClient, worker: Worker) -> None:
    job = await client.submit("a lake", num_frames=99)
    assert await client.update_prompt(job.id, "a sea") == 0  # nothing has started
    claim = await worker.claim()
    assert await worker.store.begin_chunk(claim.lease, 0, 1) == Start(verdict=Verdict.GO)
    assert await client.update_prompt(job.id, "a storm", interpolation_chunks=0) == 1
    (update,) = (await client.get(job.id)).prompt_updates[1:]
    assert (update.chunk_index, update.prompt, update.interpolation_chunks) == (1, "a storm", 0)
    assert [each.prompt for each in (await worker.store.begin_chunk(claim.lease, 1, 1)).prompt_updates] == ["a storm"]
    await client.update_prompt(job.id, "calm")
    with pytest.raises(HeliosError, match="changed 3 times") as caught:
        await client.update_prompt(job.id, "one more")
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    late = await client.submit("a lake", num_frames=33)
    claim = await worker.claim()
    await worker.store.begin_chunk(claim.lease, 0, 0)
    with pytest.raises(HeliosError, match="no chunk left") as caught:
        await client.update_prompt(late.id, "too late")
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    await client.cancel(late.id)
    with pytest.raises(HeliosError, match="is cancelled"):
        await client.update_prompt(late.id, "too late")


class Commands:
    """Commands that a test sends one by one."""

    def __init__(self, *first: pb.InteractRequest) -> None:
        self._queue: asyncio.Queue[pb.InteractRequest | None] = asyncio.Queue()
        for request in first:
            self.send(request)

    def send(self, request: pb.InteractRequest | None) -> None:
        self._queue.put_nowait(request)

    async def __aiter__(self) -> AsyncIterator[pb.InteractRequest]:
        while (request := await self._queue.get()) is not None:
            yield request


def start(**params: Any) -> pb.InteractRequest:
    return pb.InteractRequest(start=pb.SubmitJobRequest(params=pb.GenerationParams(prompt="a lake", **params)))


async def next_event(events: Any, kind: str) -> Any:
    """The next event of a kind; others are skipped."""
    async with asyncio.timeout(60):
        async for event in events:
            if event.WhichOneof("event") == kind:
                return getattr(event, kind)
    raise AssertionError(f"no {kind}")


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_session, "SIGNS_A_GRACE", GRACE_S / SIGN_S)


async def kept(worker: Worker, job_id: str) -> bool:
    """Whether the session is alive."""
    async with async_client(worker.redis.url) as redis:
        return bool(await redis.exists(Keys(worker.redis.namespace).of("session", job_id)))


async def stopping(worker: Worker, job_id: str) -> bool:
    """Whether the client's wish has arrived."""
    async with async_client(worker.redis.url) as redis:
        return bool(await redis.hexists(Keys(worker.redis.namespace).of("job", job_id), "stopping"))


async def gone(gateway: Gateway) -> None:
    """Waits until the gateway knows that the session's client is gone."""
    read = gateway.metrics.registry.get_sample_value
    await until(lambda: read("helios_grpc_active_requests", {"method": "Interact"}) == 0.0)


@pytest.mark.usefixtures("_often")
async def test_a_live_session_from_start_to_stop(client: AsyncHeliosClient, worker: Worker, tmp_path: Path) -> None:
    commands = Commands(start(open_ended=True))
    events = client.interact(commands)
    job = await next_event(events, "job")
    assert (job.state, job.chunks_total, job.priority) == (pb.JOB_STATE_QUEUED, 0, pb.PRIORITY_INTERACTIVE)
    claim = await worker.claim()
    assert (await worker.store.begin_chunk(claim.lease, 0, 0)).verdict is Verdict.GO
    await worker.append(claim, 0, SIZE)
    assert (await next_event(events, "chunk")).init_segment
    chunk = await next_event(events, "chunk")
    assert (chunk.chunk_index, chunk.data) == (0, fragment(0, SIZE))
    commands.send(pb.InteractRequest(prompt=pb.ScheduledPrompt(prompt="a sea", interpolation_chunks=2)))
    assert (await next_event(events, "prompt")).chunk_index == 1
    commands.send(pb.InteractRequest(prompt=pb.ScheduledPrompt(prompt="")))
    refused = await next_event(events, "refused")
    assert (refused.code, "prompt: ''" in refused.message) == (grpc.StatusCode.INVALID_ARGUMENT.value[0], True)
    commands.send(pb.InteractRequest(pause=pb.Pause()))
    assert (await next_event(events, "job")).paused
    assert (await worker.store.begin_chunk(claim.lease, 1, 1)).verdict is Verdict.PAUSED
    commands.send(pb.InteractRequest(resume=pb.Resume()))
    assert not (await next_event(events, "job")).paused
    assert (await worker.store.begin_chunk(claim.lease, 1, 1)).verdict is Verdict.GO
    await let_session_lapse(job.id, worker.redis)
    await until(lambda: kept(worker, job.id))  # this stream keeps the session alive
    commands.send(pb.InteractRequest(stop=pb.Stop()))
    await until(lambda: stopping(worker, job.id))
    assert (await worker.store.begin_chunk(claim.lease, 2, 1)).verdict is Verdict.STOPPED
    await worker.append(claim, 1, SIZE)
    assert (await next_event(events, "chunk")).chunk_index == 1
    await worker.publish(claim, b"video", tmp_path)
    states = [event.job.state async for event in events if event.WhichOneof("event") == "job"]
    assert states[-1] == pb.JOB_STATE_SUCCEEDED


@pytest.mark.usefixtures("_often")
async def test_a_cut_session_can_be_attached_again_and_lapses_without(
    client: AsyncHeliosClient, worker: Worker, gateway: Gateway
) -> None:
    events = client.interact(Commands(start(open_ended=True)))
    job = await next_event(events, "job")
    claim = await worker.claim()
    await worker.store.begin_chunk(claim.lease, 0, 0)
    await worker.append(claim, 0, SIZE)
    await events.aclose()
    attach = pb.InteractRequest(attach=pb.StreamVideoRequest(job_id=job.id))
    events = client.interact(Commands(attach))
    assert (await next_event(events, "job")).id == job.id
    assert (await next_event(events, "chunk")).init_segment
    assert (await next_event(events, "chunk")).data == fragment(0, SIZE)
    await let_session_lapse(job.id, worker.redis)
    await until(lambda: kept(worker, job.id))
    assert (await worker.store.begin_chunk(claim.lease, 1, 0)).verdict is Verdict.GO
    await events.aclose()
    await gone(gateway)
    await let_session_lapse(job.id, worker.redis)
    await asyncio.sleep(3 * SIGN_S)  # nobody gives signs of life any more
    assert (await worker.store.begin_chunk(claim.lease, 2, 0)).verdict is Verdict.STOPPED
    with pytest.raises(HeliosError, match="no live session") as caught:
        await next_event(client.interact(Commands(attach)), "job")
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("first", "named"),
    [
        (pb.InteractRequest(pause=pb.Pause()), "command: 'pause' is not allowed; allowed: start or attach"),
        (pb.InteractRequest(), "command: None is not allowed"),
        (start(num_frames=-1), "params.num_frames: -1"),
    ],
)
async def test_sessions_that_begin_badly(client: AsyncHeliosClient, first: pb.InteractRequest, named: str) -> None:
    with pytest.raises(HeliosError, match=named) as caught:
        await next_event(client.interact(Commands(first)), "job")
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_chunks_that_an_open_ended_job_has_dropped_are_out_of_range(
    client: AsyncHeliosClient, worker: Worker
) -> None:
    job = await client.submit("a lake", open_ended=True)
    claim = await worker.claim()
    for index in range(5):
        await worker.store.begin_chunk(claim.lease, index, 0)
        await worker.append(claim, index, SIZE)
    assert (await client.get(job.id)).first_chunk == 2
    with pytest.raises(HeliosError, match="0 is no longer kept; allowed: 2 and later") as caught:
        await anext(client.stream(job.id))
    assert caught.value.code is grpc.StatusCode.OUT_OF_RANGE
    stream = client.stream(job.id, from_chunk=2)
    segments = [await anext(stream) for _ in range(4)]
    assert [segment.data for segment in segments] == [b"init", *(fragment(index, SIZE) for index in (2, 3, 4))]
    await stream.aclose()


async def test_readers_beyond_a_stopped_jobs_end(client: AsyncHeliosClient, worker: Worker, tmp_path: Path) -> None:
    job = await client.submit("a lake", open_ended=True)
    claim = await worker.claim()
    await worker.store.begin_chunk(claim.lease, 0, 0)
    await worker.append(claim, 0, SIZE)
    far = asyncio.ensure_future(anext(client.stream(job.id, from_chunk=50)))
    await asyncio.sleep(0.2)
    await worker.store.control(job.id, Control.STOP)
    await worker.store.begin_chunk(claim.lease, 1, 0)
    await worker.publish(claim, b"video", tmp_path)
    with pytest.raises(HeliosError, match="50 is beyond the video; allowed: 0 to 0"):
        await asyncio.wait_for(far, 60)
    assert [segment async for segment in client.stream(job.id, from_chunk=1)] == []  # the client had seen it all


@pytest.mark.usefixtures("_often")
async def test_a_session_outlives_an_outage_that_no_worker_saw(client: AsyncHeliosClient, worker: Worker) -> None:
    events = client.interact(Commands(start(open_ended=True)))
    job = await next_event(events, "job")
    await let_session_lapse(job.id, worker.redis)
    await until(lambda: kept(worker, job.id))
    claim = await worker.claim()
    assert (await worker.store.begin_chunk(claim.lease, 0, 0)).verdict is Verdict.GO
    await events.aclose()


async def test_a_start_that_is_repeated_keeps_the_session(
    client: AsyncHeliosClient, worker: Worker, gateway: Gateway
) -> None:
    request = start(open_ended=True)
    request.start.idempotency_key = "k"
    first = client.interact(Commands(request))
    job = await next_event(first, "job")
    await first.aclose()
    await gone(gateway)
    await let_session_lapse(job.id, worker.redis)
    second = client.interact(Commands(request))
    assert (await next_event(second, "job")).id == job.id
    claim = await worker.claim()  # long before the next sign of life
    assert (await worker.store.begin_chunk(claim.lease, 0, 0)).verdict is Verdict.GO
    await second.aclose()


async def test_a_session_is_ended_by_its_own_account_or_with_the_scope_cancel(
    config: ServiceConfig, worker: Worker, tmp_path: Path
) -> None:
    """The attack: another key of the tenant, which may not cancel jobs, attaches and stops or pauses the session."""
    plain = frozenset({Scope.SUBMIT, Scope.READ})
    made = {
        "starter": new_key("starter", "t", plain),
        "successor": new_key("successor", "t", plain, account="starter"),
        "viewer": new_key("viewer", "t", plain),
        "warden": new_key("warden", "t", plain | {Scope.CANCEL}),
    }
    file = tmp_path / "keys.yaml"
    file.write_text(yaml.safe_dump({"keys": [entry.model_dump(mode="json") for _, entry in made.values()]}))
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(serving(config, api_keys_file=str(file)))
        clients = {
            name: await stack.enter_async_context(
                AsyncHeliosClient(f"127.0.0.1:{gateway.port}", Connection(api_key=key))
            )
            for name, (key, _) in made.items()
        }
        for ender, allowed in (("viewer", False), ("starter", True), ("successor", True), ("warden", True)):
            events = clients["starter"].interact(Commands(start(open_ended=True)))
            job = await next_event(events, "job")
            await events.aclose()
            commands = Commands(pb.InteractRequest(attach=pb.StreamVideoRequest(job_id=job.id)))
            attached = clients[ender].interact(commands)
            await next_event(attached, "job")
            for command in ("pause", "stop"):
                commands.send(pb.InteractRequest(**{command: {}}))  # type: ignore[arg-type]
                if not allowed:
                    refused = await next_event(attached, "refused")
                    assert refused.code == grpc.StatusCode.PERMISSION_DENIED.value[0]
            if allowed:
                await until(lambda job=job: stopping(worker, job.id))  # type: ignore[misc]
            else:
                assert not await stopping(worker, job.id)
                assert not (await worker.store.get(job.id)).paused
            await attached.aclose()
            await worker.store.cancel(job.id)


async def test_a_session_is_made_and_sent_so_far_ahead_of_what_its_viewer_has_played(
    client: AsyncHeliosClient, worker: Worker
) -> None:
    commands = Commands(start(num_frames=33 * 6))
    events = client.interact(commands)
    job = await next_event(events, "job")
    claim = await worker.claim()
    commands.send(pb.InteractRequest(played=pb.Played(chunks=0)))
    commands.send(pb.InteractRequest(played=pb.Played(chunks=-1)))  # its answer tells that both were read
    assert "played.chunks: -1" in (await next_event(events, "refused")).message
    for index in range(2):
        assert (await worker.store.begin_chunk(claim.lease, index, 0)).verdict is Verdict.GO
        await worker.append(claim, index, SIZE)
    assert (await worker.store.begin_chunk(claim.lease, 2, 0)).verdict is Verdict.AHEAD
    assert [(await next_event(events, "chunk")).chunk_index for _ in range(3)] == [0, 0, 1]  # with the init segment
    commands.send(pb.InteractRequest(played=pb.Played(chunks=1)))

    async def goes_on() -> bool:
        return (await worker.store.begin_chunk(claim.lease, 2, 0)).verdict is Verdict.GO

    await until(goes_on)
    await worker.append(claim, 2, SIZE)
    assert (await worker.store.begin_chunk(claim.lease, 3, 0)).verdict is Verdict.AHEAD
    again = Commands(pb.InteractRequest(attach=pb.StreamVideoRequest(job_id=job.id)))
    again.send(pb.InteractRequest(played=pb.Played(chunks=0)))
    again.send(pb.InteractRequest(played=pb.Played(chunks=-1)))
    second = client.interact(again)
    seen = [event async for event in until_refused(second)]
    while len(seen) < 3:
        seen.append((await next_event(second, "chunk")).chunk_index)
    again.send(pb.InteractRequest(prompt=pb.ScheduledPrompt(prompt="a sea")))
    assert (await next_event(second, "prompt")).chunk_index == 3  # answered, though a chunk waits for its viewer
    await events.aclose()
    await second.aclose()


async def until_refused(events: Any) -> AsyncIterator[int]:
    """The chunks that come before a refusal."""
    async for event in events:
        if event.WhichOneof("event") == "refused":
            return
        if event.WhichOneof("event") == "chunk":
            yield event.chunk.chunk_index
