"""A denoiser replica of two ranks that loses one of them. Seen from outside, through gRPC, as in test_workers.

Whatever is lost, the replica's group ends as a whole, a new one makes the rest, and the video is bit for bit the
undisturbed one of two ranks. The tests share one service and run in order.
"""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from faults.conftest import JOB as SHORT_JOB
from faults.conftest import Seen, Service

from helios.v1 import video_generation_pb2 as pb
from helios_services.client import HeliosClient
from helios_services.deployments.dispatch.stage_calls import Fault
from helios_services.jobs.embedded import EmbeddedRedis

EXCHANGE_TIMEOUT_S = 30
CHUNKS = 8
JOB = SHORT_JOB | {"pyramid_steps": [20, 20, 20], "num_frames": 33 * CHUNKS}
"""Denoising takes the better part of a second: when chunk k arrives, chunk k + 2 has just been begun."""


@pytest.fixture(scope="module")
def service(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("ranks")
    redis = EmbeddedRedis.start(folder)
    service = Service(
        folder,
        checkpoint,
        redis.url,
        HELIOS_DENOISER__PARALLEL__ULYSSES_DEGREE="2",
        HELIOS_DENOISER__PARALLEL__TIMEOUT_S=str(EXCHANGE_TIMEOUT_S),
        HELIOS_DENOISER__TORCH_THREADS="1",
        HELIOS_DENOISER__HEALTH_CHECK_PERIOD_S="1",
        HELIOS_DISPATCHER__CONCURRENT_JOBS="1",
    )
    try:
        service.start_worker()
        yield service
    finally:
        service.close()
        redis.stop()


@pytest.fixture(scope="module")
def undisturbed(client: HeliosClient, service: Service) -> list[bytes]:
    """The video's segments when nothing goes wrong."""
    return [segment.data for segment in client.stream(client.submit(**JOB).id)]


def group(service: Service) -> dict[str, psutil.Process]:
    """The ranks' processes: "leader" and "follower", one of each."""
    titles = {"leader": "ray::ServeReplica:helios:denoiser", "follower": "ray::Follower"}
    found = {}
    for name, title in titles.items():
        (found[name],) = service.processes(title)
    return found


def lost_calls(service: Service) -> int:
    """Calls of the denoiser that were lost so far, and made again."""
    said = [json.loads(line) for line in service.log("worker").splitlines() if '"stage_repeated"' in line]
    return sum((line["stage"], line["fault"]) == ("denoise", Fault.LOST.value) for line in said)


@pytest.mark.fault(number=19, fault="a rank of the denoiser's group killed or hung in mid-job (real Ray, 2 ranks)")
@pytest.mark.parametrize(
    ("rank", "sent"),
    [("follower", signal.SIGKILL), ("leader", signal.SIGKILL), ("follower", signal.SIGSTOP)],
    ids=["follower dies", "leader dies", "follower hangs"],
)
def test_a_lost_rank_costs_no_chunk_and_no_bit(
    client: HeliosClient, service: Service, undisturbed: list[bytes], rank: str, sent: signal.Signals, seen: Seen
) -> None:
    lost, repeated = group(service), lost_calls(service)
    job = client.submit(**JOB)
    segments = []
    for segment in client.stream(job.id):
        segments.append(segment)
        if segment.info is not None and segment.info.index == 1:
            lost[rank].send_signal(sent)
            behind = client.submit(**JOB)  # were this one done, nobody would miss a rank that hangs
            _, alive = psutil.wait_procs(lost.values(), timeout=EXCHANGE_TIMEOUT_S + 60)
            assert not alive
    assert [segment.info.index for segment in segments if segment.info] == list(range(CHUNKS))
    assert [segment.data for segment in segments] == undisturbed
    *_, job = client.watch(job.id)
    assert (job.state, job.attempts) == (pb.JOB_STATE_SUCCEEDED, 1)
    # at most the call in progress is repeated, by the dispatcher (none if the loss falls between two calls)
    assert lost_calls(service) - repeated <= 1
    assert [segment.data for segment in client.stream(behind.id)] == undisturbed
    assert not set(group(service).values()) & set(lost.values())
    seen(f"{sent.name} to the {rank}: {CHUNKS} of {CHUNKS} chunks, bit-identical, 1 attempt at the job")


def test_a_rank_lost_while_idle_is_replaced_before_the_next_job(
    client: HeliosClient, service: Service, undisturbed: list[bytes]
) -> None:
    lost = group(service)
    lost["follower"].send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(lost.values(), timeout=60)
    assert not alive
    job = client.submit(**JOB)
    assert [segment.data for segment in client.stream(job.id)] == undisturbed


def test_sigterm_leaves_no_process(service: Service) -> None:
    service.end_worker(group(service).values())
