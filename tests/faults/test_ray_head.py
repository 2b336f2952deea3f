"""Ray itself dies: the Serve controller, the head. Real Ray, a real (tiny) model; seen from outside, through gRPC."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from faults.conftest import JOB, Seen, Service

from helios.v1 import video_generation_pb2 as pb
from helios_services.client import HeliosClient
from helios_services.jobs.embedded import EmbeddedRedis

pytestmark = pytest.mark.timeout(300)
CHUNKS = 5


@pytest.fixture(scope="module")
def service(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("head")
    redis = EmbeddedRedis.start(folder)
    service = Service(folder, checkpoint, redis.url, HELIOS_DISPATCHER__CONCURRENT_JOBS="1")
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


def process(service: Service, name: str) -> psutil.Process:
    """The worker's process whose command line begins with, or whose program is, `name`."""
    (found,) = [
        each
        for each in service.worker_processes()
        if " ".join(each.cmdline()).startswith(name) or each.name() == name
    ]
    return found


def check(client: HeliosClient, jobs: list[str], undisturbed: list[bytes]) -> list[int]:
    """All succeeded, once, bit for bit; their attempts."""
    attempts = []
    for job_id in jobs:
        assert [segment.data for segment in client.stream(job_id)] == undisturbed
        *_, job = client.watch(job_id)
        assert (job.state, job.chunks_done) == (pb.JOB_STATE_SUCCEEDED, CHUNKS)
        attempts.append(job.attempts)
    return attempts


def begun(client: HeliosClient) -> list[str]:
    """A job that runs and one that is queued behind it."""
    jobs = [client.submit(**JOB).id for _ in range(2)]
    stream = client.stream(jobs[0])
    for _ in range(2):
        next(stream)
    assert client.get(jobs[1]).state == pb.JOB_STATE_QUEUED
    return jobs


@pytest.mark.fault(number=20, fault="the Serve controller SIGKILLed while one job runs and one is queued")
def test_a_killed_controller_disturbs_no_job(
    client: HeliosClient, service: Service, undisturbed: list[bytes], seen: Seen
) -> None:
    jobs = begun(client)
    controller = process(service, "ray::ServeController")
    controller.send_signal(signal.SIGKILL)
    psutil.wait_procs([controller], timeout=30)
    attempts = check(client, jobs, undisturbed)
    assert attempts == [1, 1]
    seen(f"both jobs succeeded, {CHUNKS} of {CHUNKS} chunks, bit-identical; attempts {attempts}")


@pytest.mark.fault(number=20, fault="the Ray head (GCS, raylet) SIGKILLed while one job runs and one is queued")
def test_a_restarted_head_takes_the_jobs_up_again(
    client: HeliosClient, service: Service, undisturbed: list[bytes], seen: Seen
) -> None:
    jobs = begun(client)
    assert service.worker is not None
    processes = service.worker_processes()
    for name in ("gcs_server", "raylet"):
        process(service, name).send_signal(signal.SIGKILL)
    died_s = time.monotonic()
    service.worker.wait(120)  # a worker without Ray ends, so that its supervisor starts it again
    lasted_s = time.monotonic() - died_s
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert alive == []
    service.forget_worker()
    service.start_worker()
    attempts = check(client, jobs, undisturbed)
    assert attempts[0] == 2
    seen(
        f"the worker ended by itself after {lasted_s:.0f} s and left no process; started again, both jobs succeeded, "
        f"bit-identical; attempts {attempts}"
    )
