"""An artifact store that is full, unusable or slow when a video is to be published. Stand-in workers."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from faults.conftest import Seen
from faults.quick_service import BRIEF_LEASE_S, QuickService
from faults.stand_in_worker import Harm

from helios.v1 import video_generation_pb2 as pb
from helios_services.client import HeliosError
from support.redis_servers import RedisServer
from support.waiting import wait_until


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuickService]:
    folder = tmp_path_factory.mktemp("artifacts")
    redis = RedisServer(folder / "redis")
    with QuickService(folder, redis.url) as service:
        yield service
    redis.close()


@pytest.fixture(scope="module")
def undisturbed(service: QuickService) -> list[bytes]:
    """The job's segments when nothing goes wrong."""
    service.worker()
    return service.stream(service.submit())


@pytest.fixture
def third_gate(tmp_path: Path) -> Path:
    """A file that, if it exists, keeps the worker from its third upload."""
    return tmp_path / "third-gate"


@pytest.fixture
def full_disk(tmp_path: Path) -> Path:
    """A file that, as long as it exists, leaves the artifact store's disk without room."""
    return tmp_path / "full-disk"


@pytest.fixture
def gate(service: QuickService, undisturbed: list[bytes], third_gate: Path, full_disk: Path, tmp_path: Path) -> Path:
    """A file that keeps the worker from uploading as long as it exists."""
    service.end_workers()
    file = tmp_path / "gate"
    file.touch()
    gates = {1: file, 3: third_gate}
    harms = [Harm(point="before upload", nth=nth, action="wait", gate=str(path)) for nth, path in gates.items()]
    service.worker(*harms, full_disk=str(full_disk), config=service.with_lease(BRIEF_LEASE_S))
    return file


def not_visible(service: QuickService, job_id: str, target: Path) -> None:
    """There is no video yet, neither in the folder nor through the API."""
    assert not (service.artifacts / f"{job_id}.mp4").exists()
    with pytest.raises(HeliosError) as caught:
        service.client.download(job_id, target)
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.fault(number=24, fault="the disk of the artifact store is full at publication (ENOSPC), then has room")
def test_a_full_store_is_tried_again(
    service: QuickService,
    undisturbed: list[bytes],
    gate: Path,
    third_gate: Path,
    full_disk: Path,
    tmp_path: Path,
    seen: Seen,
) -> None:
    third_gate.touch()
    full_disk.touch()
    before = service.reached("before upload")
    job_id = service.submit()
    gate.unlink()
    wait_until(lambda: service.reached("before upload") >= before + 3)  # two uploads have failed
    not_visible(service, job_id, tmp_path / "video")
    assert not (service.artifacts / f"{job_id}.mp4.partial").exists()  # what a try has copied goes with it
    full_disk.unlink()
    third_gate.unlink()
    assert service.succeeded(job_id, undisturbed).attempts == 1
    tries = service.reached("before upload") - before
    seen(f"no video visible while full; published at try {tries}, 1 attempt at the job")


@pytest.mark.fault(number=24, fault="the artifact store stays unusable")
def test_a_store_that_stays_full_fails_the_job(
    service: QuickService, gate: Path, full_disk: Path, tmp_path: Path, seen: Seen
) -> None:
    full_disk.touch()
    before = service.reached("before upload")
    job_id = service.submit()
    gate.unlink()
    job = service.ended(job_id)
    assert (job.state, job.error.reason) == (pb.JOB_STATE_FAILED, "PUBLISH_FAILED")
    not_visible(service, job_id, tmp_path / "video")
    assert len(service.stream(job_id)) > 1  # what was made can still be streamed
    service.check_books()
    seen(f"failed with PUBLISH_FAILED after {service.reached('before upload') - before} tries; no video visible")


@pytest.mark.fault(number=24, fault="the upload takes two leases (of 15 s)")
def test_a_slow_store_is_waited_for(
    service: QuickService, undisturbed: list[bytes], gate: Path, tmp_path: Path, seen: Seen
) -> None:
    before = service.reached("before upload")
    job_id = service.submit()
    wait_until(lambda: service.reached("before upload") > before)
    service.worker()  # would take the job, were the lease to lapse
    first_end_s = service.lease_end_s(job_id)
    wait_until(lambda: service.lease_end_s(job_id) > first_end_s + 2 * BRIEF_LEASE_S)
    not_visible(service, job_id, tmp_path / "video")
    gate.unlink()
    assert service.succeeded(job_id, undisturbed).attempts == 1
    seen("no video visible meanwhile; published once, 1 attempt")
