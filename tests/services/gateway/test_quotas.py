"""Quotas, deadlines and dead letters as clients and operators meet them."""

import asyncio
from pathlib import Path

import grpc
import pytest
import yaml
from google.rpc.error_details_pb2 import QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from helios.v1 import video_generation_pb2 as pb
from helios_services.client import AsyncHeliosClient, Connection, HeliosError
from helios_services.config import ServiceConfig
from helios_services.gateway.guard.caller import Scope
from helios_services.gateway.guard.keys import KeyEntry, Quotas, new_key
from helios_services.gateway.server import Gateway
from helios_services.jobs.records import Account, JobFailure
from services.gateway.conftest import Worker
from services.test_operations import blocks, run
from support.gateway import serving
from support.processes import HELIOS


async def refusal(client: AsyncHeliosClient, **options: float) -> tuple[grpc.StatusCode, QuotaFailure, RetryInfo]:
    """What a submission that exceeds a quota is answered, in full."""
    request = pb.SubmitJobRequest(params=pb.GenerationParams(prompt="a lake", num_frames=33))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client._stub.SubmitJob(request)
    details = Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
    quota, retry = QuotaFailure(), RetryInfo()
    assert details.details[0].Unpack(quota)
    assert details.details[1].Unpack(retry)
    return caught.value.code(), quota, retry


async def test_a_keys_quota_is_told_by_name_and_change_without_a_restart(config: ServiceConfig, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"

    def write(*entries: KeyEntry) -> None:
        file.write_text(yaml.safe_dump({"keys": [entry.model_dump(mode="json") for entry in entries]}))

    key, entry = new_key("small", "t", frozenset({Scope.SUBMIT}), quotas=Quotas(max_queued=1), weight=2.0)
    other_key, other = new_key("other", "t", frozenset({Scope.SUBMIT}), account="small", quotas=Quotas(max_queued=1))
    write(entry, other)
    async with (
        serving(config, api_keys_file=str(file)) as gateway,
        AsyncHeliosClient(f"127.0.0.1:{gateway.port}", Connection(api_key=key)) as client,
        AsyncHeliosClient(f"127.0.0.1:{gateway.port}", Connection(api_key=other_key)) as rotated,
    ):
        await client.submit("a lake", num_frames=33)
        for each in (client, rotated):  # two keys of one account have one quota
            code, quota, retry = await refusal(each)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert [violation.subject for violation in quota.violations] == ["max_queued"]
            assert retry.retry_delay.ToMilliseconds() > 0
        write(entry.model_copy(update={"quotas": Quotas(max_queued=2)}), other)
        async with asyncio.timeout(120):
            while True:
                try:
                    await client.submit("a lake", num_frames=33)
                    break
                except HeliosError:
                    await asyncio.sleep(0.2)


def test_a_key_says_what_its_jobs_are_counted_by() -> None:
    quotas = Quotas(submits_per_minute=60, max_queued=2, max_running=1, video_minutes_per_day=5)
    _, entry = new_key("k", "t", frozenset({Scope.SUBMIT}), weight=3.0, quotas=quotas)
    assert entry.caller().account == Account(
        id="k", weight=3.0, submits_per_minute=60, max_queued=2, max_running=1, video_minutes_per_day=5
    )


async def test_the_operators_commands_run(client: AsyncHeliosClient, worker: Worker, gateway: Gateway) -> None:
    """Those of docs/operations.md."""
    ids = []
    for _ in range(2):
        ids.append((await client.submit("a lake", num_frames=33)).id)
        await worker.store.fail((await worker.claim()).lease, JobFailure(reason="WORKER_LOST", message="why"))
    (block,) = blocks("Dead letters")
    names = {"SERVER": f"127.0.0.1:{gateway.port}", "JOB": ids[0], "OTHER_JOB": ids[1]}
    await asyncio.to_thread(run, block, Path.cwd(), **names)
    assert [(await client.get(job_id)).state for job_id in ids] == [pb.JOB_STATE_QUEUED, pb.JOB_STATE_FAILED]
    assert await worker.store.dead_letters() == 0


async def helios(*args: str) -> str:
    """What the command prints."""
    process = await asyncio.create_subprocess_exec(
        HELIOS, *args, "--json", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, error = await process.communicate()
    assert process.returncode == 0, error
    return out.decode().replace("JOB_STATE_FAILED", "failed")


async def test_a_dead_letter_is_listed_and_queued_again_or_given_up(
    client: AsyncHeliosClient, worker: Worker, gateway: Gateway
) -> None:
    client_target = f"127.0.0.1:{gateway.port}"
    for reason in ("GENERATION_FAILED", "WORKER_LOST", "INVALID_REQUEST"):
        await client.submit("a lake", num_frames=66, labels={"reason": reason})
        claim = await worker.claim()
        await worker.append(claim, 0, size=10)
        await worker.store.fail(claim.lease, JobFailure(reason=reason, message="why"))
    letters = [job async for job in client.list(dead_letters=True)]
    assert [job.error.reason for job in letters] == ["WORKER_LOST", "GENERATION_FAILED"]
    assert "JOB_STATE_QUEUED" in await helios("jobs", "requeue", letters[0].id, "--server", client_target)
    again = await client.get(letters[0].id)
    assert (again.state, again.chunks_done) == (pb.JOB_STATE_QUEUED, 1)
    assert (await worker.claim()).checkpoint == b"state"
    assert letters[1].id in await helios("jobs", "ls", "--dead-letters", "--server", client_target)
    assert "failed" in await helios("jobs", "purge", letters[1].id, "--server", client_target)
    assert [job async for job in client.list(dead_letters=True)] == []
    for call in (client.requeue, client.purge):
        with pytest.raises(HeliosError, match="no dead letter") as caught:
            await call(letters[1].id)
        assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_deadline_ends_a_job_without_any_worker(client: AsyncHeliosClient) -> None:
    job = await client.submit("a lake", num_frames=33, timeout_s=1.5)
    assert job.deadline.ToMilliseconds() - job.create_time.ToMilliseconds() == 1500
    waiting = await client.submit("a lake", num_frames=33, queue_timeout_s=1.0)
    ended = [[each async for each in client.watch(job_id)][-1] for job_id in (job.id, waiting.id)]
    assert [each.error.reason for each in ended] == ["DEADLINE_EXCEEDED", "QUEUE_TIMEOUT"]
    with pytest.raises(HeliosError, match="deadline") as caught:
        await anext(client.stream(job.id))
    assert caught.value.code is grpc.StatusCode.ABORTED


async def test_the_deadline_of_a_call_that_waits_for_its_video_is_the_jobs(client: AsyncHeliosClient) -> None:
    request = pb.GenerateVideoRequest(
        job=pb.SubmitJobRequest(params=pb.GenerationParams(prompt="a lake", num_frames=33))
    )
    call = client._stub.GenerateVideo(request, timeout=200)
    first = await call.read()
    seconds = first.job.deadline.ToMilliseconds() / 1e3 - first.job.create_time.ToMilliseconds() / 1e3
    assert 100 < seconds < 201  # gRPC rounds it up a little on the way
    call.cancel()


@pytest.mark.parametrize("field", ["timeout_s", "queue_timeout_s"])
@pytest.mark.parametrize("value", [0.0, -1.0, 0.5, 31 * 86400.0])
async def test_impossible_timeouts_are_refused(client: AsyncHeliosClient, field: str, value: float) -> None:
    with pytest.raises(HeliosError, match=rf"{field.removesuffix('_s')}.*1 s to 2592000 s") as caught:
        await client.submit("a lake", **{field: value})
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
