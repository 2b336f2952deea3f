"""Workers that die, stop, block or err at named points; another takes over. Stand-in workers, real everything else."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.conftest import Seen
from faults.proxy import FaultProxy, port_of, sha_of
from faults.quick_service import BRIEF_LEASE_S, CHUNKS, JOBS, LEASE_S, QuickService
from faults.stand_in_worker import Harm

from helios.v1 import video_generation_pb2 as pb
from support.redis_servers import RedisServer
from support.waiting import wait_until

HOUR_S = 3600.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuickService]:
    folder = tmp_path_factory.mktemp("deaths")
    redis = RedisServer(folder / "redis")
    with QuickService(folder, redis.url) as service:
        yield service
    redis.close()


@pytest.fixture(scope="module")
def undisturbed(service: QuickService) -> list[bytes]:
    """The job's segments when nothing goes wrong."""
    service.worker()
    segments = service.stream(service.submit())
    service.end_workers()
    return segments


@pytest.fixture(autouse=True)
def _workers_end(service: QuickService, undisturbed: list[bytes]) -> Iterator[None]:
    yield
    service.end_workers()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file that keeps a worker waiting as long as it exists."""
    file = tmp_path / "gate"
    file.touch()
    return file


@pytest.mark.parametrize(
    ("point", "nth"),
    [
        ("after claim", 1),
        ("denoise 1", 1),
        ("before append_chunk", 2),
        ("after append_chunk", 2),
        ("before begin_publish", 1),
        ("after begin_publish", 1),
        ("before upload", 1),
        ("before succeed", 1),
        ("after succeed", 1),
    ],
)
@pytest.mark.fault(number=1, fault="worker SIGKILLed at each transition (stand-in stages)")
def test_a_worker_killed_at_any_transition_is_replaced(
    service: QuickService, undisturbed: list[bytes], seen: Seen, point: str, nth: int
) -> None:
    dying = service.worker(Harm(point=point, nth=nth, action="kill"))
    job_id = service.submit()
    dying.died()
    acknowledged = point == "after succeed"
    assert (service.client.get(job_id).state == pb.JOB_STATE_SUCCEEDED) == acknowledged
    service.let_lapse()
    lapsed_s = time.monotonic()
    service.worker()
    job = service.succeeded(job_id, undisturbed)
    assert job.attempts == (1 if acknowledged else 2)
    lasted_s = time.monotonic() - lapsed_s
    seen(f"{point}: ended {lasted_s:.1f} s after the lease, {CHUNKS} of {CHUNKS} chunks, bit-identical")


@pytest.mark.parametrize(
    ("point", "nth", "chunks_done"), [("before append_chunk", 2, 1), ("before succeed", 1, CHUNKS)]
)
@pytest.mark.fault(number=2, fault="worker SIGSTOPped past its lease, then SIGCONT, while another has the job")
def test_a_worker_that_comes_back_too_late_changes_nothing(
    service: QuickService, undisturbed: list[bytes], seen: Seen, gate: Path, point: str, nth: int, chunks_done: int
) -> None:
    late = service.worker(Harm(point=point, nth=nth, action="stop"), config=service.with_slots(1))
    job_id = service.submit()
    wait_until(lambda: late.stopped)
    service.let_lapse()
    held = "before upload" if chunks_done == CHUNKS else "denoise 1"
    before = service.reached(held)
    service.worker(Harm(point=held, action="wait", gate=str(gate)), config=service.with_slots(1))
    wait_until(lambda: service.reached(held) > before)
    record = service.redis.hgetall(service.key("job", job_id))
    late.send(signal.SIGCONT)
    other = service.submit(
        prompt="another"
    )  # only the late worker is free: when it has made this, it is past its write
    assert service.ended(other).state == pb.JOB_STATE_SUCCEEDED
    assert service.redis.hgetall(service.key("job", job_id)) == record
    assert service.client.get(job_id).chunks_done == chunks_done
    gate.unlink()
    assert service.succeeded(job_id, undisturbed).attempts == 2
    seen(f"late write at {chunks_done} of {CHUNKS} chunks refused, the record unchanged; video bit-identical")


@pytest.mark.fault(number=3, fault="a job that takes three leases (of 15 s), its event loop blocked all the while")
def test_a_long_job_is_executed_once_even_if_its_loop_blocks(
    service: QuickService, undisturbed: list[bytes], seen: Seen, gate: Path
) -> None:
    service.worker(Harm(point="denoise 1", action="block", gate=str(gate)), config=service.with_lease(BRIEF_LEASE_S))
    before = service.reached("denoise 1")
    job_id = service.submit()
    wait_until(lambda: service.reached("denoise 1") > before)
    service.worker()  # stands by to take what lapses
    first_end_s = service.lease_end_s(job_id)
    wait_until(lambda: service.lease_end_s(job_id) > first_end_s + 3 * BRIEF_LEASE_S)
    gate.unlink()
    assert service.succeeded(job_id, undisturbed).attempts == 1
    assert service.reached("denoise 1") == before + 1
    seen("1 attempt, no chunk made twice")


@pytest.mark.fault(number=4, fault="the reclaiming worker SIGKILLed while its claim's answer is on the way")
def test_a_reclaimer_that_dies_in_the_act_is_replaced(
    service: QuickService, undisturbed: list[bytes], seen: Seen
) -> None:
    first = service.worker(Harm(point="denoise 1", action="kill"))
    job_id = service.submit()
    first.died()
    service.let_lapse()
    with FaultProxy(port_of(service.config.redis.url)) as proxy:
        proxy.mute(sha_of("claim"))
        redis = service.config.redis.model_copy(update={"url": proxy.url, "socket_timeout_s": 300.0})
        second = service.worker(config=service.config.model_copy(update={"redis": redis}))
        wait_until(lambda: service.client.get(job_id).attempts == 2)  # the job is its own, but it does not know
        second.send(signal.SIGKILL)
        second.died()
    service.let_lapse()
    service.worker()
    job = service.succeeded(job_id, undisturbed)
    assert job.attempts == 3
    seen("the third worker finished: 3 attempts, bit-identical")


def poisoned(service: QuickService, *, concurrent_jobs: int) -> tuple[pb.Job, pb.Job, int]:
    """A poison job and the one behind it after their ends, and how many workers died. Dead workers are replaced."""
    config = service.with_slots(concurrent_jobs)
    poison = Harm(point="embed poison", action="kill")
    worker, deaths = service.worker(poison, config=config), 0
    jobs = [service.submit(prompt="poison"), service.submit()]

    def over() -> bool:
        nonlocal worker, deaths
        if not worker.alive:
            service.let_lapse()
            worker, deaths = service.worker(poison, config=config), deaths + 1
        return all(service.client.get(job_id).HasField("end_time") for job_id in jobs)

    wait_until(over)
    failed, behind = (service.client.get(job_id) for job_id in jobs)
    return failed, behind, deaths


@pytest.mark.fault(number=5, fault="a job that kills every worker that touches it")
def test_a_poison_job_fails_and_the_queue_flows_on(service: QuickService, undisturbed: list[bytes], seen: Seen) -> None:
    failed, behind, deaths = poisoned(service, concurrent_jobs=1)
    assert (failed.state, failed.error.reason) == (pb.JOB_STATE_FAILED, "WORKER_LOST")
    assert deaths == failed.attempts == JOBS.max_attempts
    assert service.succeeded(behind.id, undisturbed).attempts == 1
    seen(f"failed with WORKER_LOST after {deaths} workers; the job behind it succeeded at its first attempt")


def test_a_poison_job_does_not_take_its_neighbour_with_it(service: QuickService) -> None:
    _, neighbour, _ = poisoned(service, concurrent_jobs=2)
    assert neighbour.state == pb.JOB_STATE_SUCCEEDED


@pytest.mark.parametrize("seconds", [HOUR_S, -HOUR_S], ids=["ahead", "back"])
@pytest.mark.fault(number=23, fault="the worker's clock jumps by an hour in mid-job (its time module is patched)")
def test_a_clock_that_jumps_changes_no_lease(
    service: QuickService, undisturbed: list[bytes], seen: Seen, gate: Path, seconds: float
) -> None:
    service.worker(
        Harm(point="denoise 1", action="jump", seconds=seconds), Harm(point="denoise 2", action="wait", gate=str(gate))
    )
    before = service.reached("denoise 2")
    job_id = service.submit()
    wait_until(lambda: service.reached("denoise 2") > before)
    service.worker()  # would take the job, were the lease to lapse
    ends: set[float] = set()
    while len(ends) < 6:  # renewed several times since the jump
        end_s = service.lease_end_s(job_id)
        assert 0 < end_s - service.server_time_s() <= LEASE_S
        ends.add(end_s)
    gate.unlink()
    assert service.succeeded(job_id, undisturbed).attempts == 1
    seen(f"jump of {seconds:+.0f} s: lease renewed by the server's clock, 1 attempt")
