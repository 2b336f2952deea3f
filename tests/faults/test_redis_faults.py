"""A Redis that loses answers, goes away, is slow, falls silent, dies, forgets or is full. Stand-in workers."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import psutil
import pytest
from faults.conftest import Seen
from faults.proxy import FaultProxy, Mode, sha_of
from faults.quick_service import CHUNKS, JOBS, QuickService
from faults.stand_in_worker import Harm

from helios.v1 import video_generation_pb2 as pb
from helios_services.client import HeliosClient, HeliosError
from support.redis_servers import RedisServer
from support.waiting import wait_until

OUTAGE_S = 6.0
UNHURRIED = JOBS.model_copy(update={"heartbeat_s": 3.0})
"""A heartbeat gives up on an answer that takes longer than to the next one."""
LATENCY_S = 1.0


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    redis = RedisServer(tmp_path_factory.mktemp("redis"))
    yield redis
    redis.close()


@pytest.fixture(scope="module")
def proxy(redis: RedisServer) -> Iterator[FaultProxy]:
    with FaultProxy(redis.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def service(redis: RedisServer, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuickService]:
    """Gateway and workers reach Redis through the proxy, the test itself does not."""
    with QuickService(
        tmp_path_factory.mktemp("service"), redis.url, via=proxy.url, redis={"socket_timeout_s": 5.0}
    ) as service:
        yield service


@pytest.fixture(scope="module")
def undisturbed(service: QuickService) -> list[bytes]:
    """The job's segments when nothing goes wrong."""
    service.worker()
    return service.stream(service.submit())


@pytest.fixture(autouse=True)
def _afresh(service: QuickService, redis: RedisServer, undisturbed: list[bytes]) -> None:
    """No worker and no job; the scripts stay."""
    service.end_workers()
    redis.client.flushall()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    file = tmp_path / "gate"
    file.touch()
    return file


def cpu_of(processes: list[psutil.Process]) -> float:
    """Seconds of CPU that they have used."""
    return sum(process.cpu_times().user + process.cpu_times().system for process in processes)


def is_unavailable(error: HeliosError) -> bool:
    """Whether it says to come back."""
    return error.code is grpc.StatusCode.UNAVAILABLE


def running(service: QuickService, gate: Path) -> str:
    """A job whose worker, of one slot, waits at the gate in its second chunk."""
    service.worker(Harm(point="denoise 1", action="wait", gate=str(gate)), config=service.with_slots(1))
    before, job_id = service.reached("denoise 1"), service.submit()
    wait_until(lambda: service.reached("denoise 1") > before)
    return job_id


@pytest.mark.fault(number=6, fault="answers to submit, claim, begin, append, publish and finish swallowed")
def test_lost_answers_have_one_effect_and_no_error(
    service: QuickService, proxy: FaultProxy, undisturbed: list[bytes], seen: Seen
) -> None:
    service.worker()
    scripts = ("submit", "begin", "append", "publish", "finish", "save_prompt")
    proxy.swallow(*map(sha_of, scripts))
    job_id = service.submit()
    assert service.succeeded(job_id, undisturbed).attempts == 1
    proxy.swallow(sha_of("claim"))
    wait_until(lambda: sha_of("claim") in proxy.swallowed)
    second = service.submit()
    proxy.swallow(sha_of("claim"))
    assert service.succeeded(second, undisturbed).attempts == 1
    assert set(proxy.swallowed) >= set(map(sha_of, (*scripts, "claim")))
    assert len(list(service.client.list())) == 2
    seen(f"{len(proxy.swallowed)} answers lost: one job each, 1 attempt, {CHUNKS} of {CHUNKS} chunks, bit-identical")


@pytest.mark.fault(number=7, fault="Redis refuses connections when gateway and worker start")
def test_a_redis_that_comes_late_is_taken_up(redis: RedisServer, tmp_path: Path, seen: Seen) -> None:
    with FaultProxy(redis.port) as proxy, ExitStack() as stack:
        proxy.set(Mode.CUT)
        service = stack.enter_context(QuickService(tmp_path, redis.url, via=proxy.url))
        worker = service.worker()
        with pytest.raises(HeliosError) as caught:
            service.submit()
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        assert caught.value.retry_after_s
        wait_until(lambda: "redis_unreachable" in worker.log.read_text())
        proxy.set(Mode.PASS)
        came_s = time.monotonic()
        wait_until(lambda: _accepted(service))
        (job,) = service.client.list()
        assert service.ended(job.id).state == pb.JOB_STATE_SUCCEEDED
        seen(
            f"UNAVAILABLE with a retry delay meanwhile; a job had ended {time.monotonic() - came_s:.1f} s after it came"
        )


def _accepted(service: QuickService) -> bool:
    try:
        service.submit(idempotency_key="once")
    except HeliosError:
        return False
    return True


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.HALF_OPEN], ids=["cut", "half-open"])
@pytest.mark.fault(number=7, fault="Redis cut off, or half-open, for longer than the lease in mid-job")
def test_an_outage_longer_than_the_lease_costs_nothing(
    service: QuickService, proxy: FaultProxy, undisturbed: list[bytes], gate: Path, seen: Seen, mode: Mode
) -> None:
    job_id = running(service, gate)
    logs = [service.workers[0].log, service.folder / "gateway.log"]
    processes = [service.workers[0].ps, service.gateway.ps]
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(lambda: [segment.data for segment in service.client.stream(job_id)])
        cpu_s, logged = cpu_of(processes), sum(len(log.read_bytes()) for log in logs)
        proxy.set(mode)
        gate.unlink()  # the chunk is made, and cannot be delivered
        time.sleep(OUTAGE_S)
        service.let_lapse()
        cpu_s = cpu_of(processes) - cpu_s
        logged = sum(len(log.read_bytes()) for log in logs) - logged
        proxy.set(Mode.PASS)
        back_s = time.monotonic()
        job = service.succeeded(job_id, undisturbed)
        seconds = time.monotonic() - back_s
        cut = stream.exception()
    # a stream that was open went on, or ended as one does that is to be resumed
    assert stream.result() == undisturbed if cut is None else isinstance(cut, HeliosError) and is_unavailable(cut)
    assert cpu_s < OUTAGE_S / 2  # two processes: a busy loop in one takes all of it
    assert logged < 20_000
    seen(
        f"{mode.name.lower()}: ended {seconds:.1f} s after it was over, attempt {job.attempts}, bit-identical; "
        f"meanwhile {cpu_s:.2f} s of CPU and {logged} bytes of log"
    )


@pytest.mark.fault(number=7, fault=f"every answer of Redis {LATENCY_S:.0f} s late")
def test_a_slow_redis_slows_and_nothing_else(redis: RedisServer, tmp_path: Path, seen: Seen) -> None:
    with FaultProxy(redis.port) as proxy, QuickService(tmp_path, redis.url, jobs=UNHURRIED) as service:
        service.worker()
        undisturbed = service.stream(service.submit(num_frames=33))
        service.end_workers()
        proxy.delay_s = LATENCY_S
        job_id = service.submit(num_frames=33)
        late = service.config.redis.model_copy(update={"url": proxy.url, "socket_timeout_s": 5.0})
        service.worker(config=service.config.model_copy(update={"redis": late}))
        assert service.succeeded(job_id, undisturbed).attempts == 1
        proxy.delay_s = 0.0
        service.end_workers()
    seen("1 attempt, bit-identical")


@pytest.mark.fault(number=8, fault="redis-server SIGKILLed in mid-job, restarted from its append-only file")
def test_a_killed_redis_loses_nothing(
    service: QuickService, redis: RedisServer, undisturbed: list[bytes], gate: Path, seen: Seen
) -> None:
    jobs = [running(service, gate), *(service.submit() for _ in range(20))]
    redis.kill()
    gate.unlink()
    redis.start()
    jobs.append(_eventually_submitted(service))
    attempts = [service.succeeded(job_id, undisturbed).attempts for job_id in jobs]
    assert len(list(service.client.list())) == len(jobs)
    seen(f"{len(jobs)} of {len(jobs)} jobs ended once, bit-identical; at most {max(attempts)} attempts")


def _eventually_submitted(service: QuickService) -> str:
    """With one idempotency key, as a client should that gets UNAVAILABLE."""
    while True:
        try:
            return service.submit(idempotency_key="after the restart")
        except HeliosError as error:
            if error.code is not grpc.StatusCode.UNAVAILABLE:
                raise
            time.sleep(0.1)


def all_of(call: Callable[[str], Iterator[object]], job_id: str) -> list[object]:
    """What a streaming call gives."""
    return list(call(job_id))


@pytest.mark.fault(number=8, fault="FLUSHALL while one job runs and one is queued")
def test_a_flushed_redis_fails_loudly(
    service: QuickService, redis: RedisServer, undisturbed: list[bytes], gate: Path, seen: Seen
) -> None:
    lost = [running(service, gate), service.submit(), service.submit()]
    with ThreadPoolExecutor(2 * len(lost)) as pool:
        methods: list[Callable[[str], Iterator[object]]] = [service.client.stream, service.client.watch]
        calls = [pool.submit(all_of, method, job_id) for job_id in lost for method in methods]
        wait_until(lambda: service.gateway_streams() == len(calls))
        redis.client.flushall()
        gate.unlink()
        for call in calls:
            error = call.exception(120)
            assert isinstance(error, HeliosError), error
            assert error.code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.OUT_OF_RANGE)  # job or chunk
    assert service.succeeded(service.submit(), undisturbed).attempts == 1
    seen(f"{len(calls)} streams and watches ended NOT_FOUND; the same worker made the next job")


@pytest.mark.fault(number=9, fault="Redis at maxmemory while a job runs")
def test_a_full_redis_refuses_new_jobs_and_finishes_running_ones(
    service: QuickService, redis: RedisServer, undisturbed: list[bytes], gate: Path, seen: Seen
) -> None:
    job_id = running(service, gate)
    redis.client.config_set("maxmemory-policy", "noeviction")
    redis.client.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(HeliosError) as caught:
            service.submit()
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.retry_after_s
        gate.unlink()
        assert service.succeeded(job_id, undisturbed).attempts == 1
    finally:
        redis.client.config_set("maxmemory", "0")
    service.succeeded(service.submit(), undisturbed)
    seen("RESOURCE_EXHAUSTED with a retry delay; the running job succeeded, bit-identical")


@pytest.mark.fault(number=13, fault="one idempotency key in 100 calls at once, after the job's end, with another body")
def test_an_idempotency_key_is_one_job(service: QuickService, undisturbed: list[bytes], seen: Seen) -> None:
    def submit(number: int) -> str:
        with HeliosClient(service.gateway.address) as client:
            return client.submit("a sea", num_frames=33, height=64, width=64, idempotency_key="k").id

    with ThreadPoolExecutor(25) as pool:
        ids = set(pool.map(submit, range(100)))
    (job_id,) = ids
    service.worker()
    assert service.ended(job_id).state == pb.JOB_STATE_SUCCEEDED
    assert submit(0) == job_id
    with pytest.raises(HeliosError) as caught:
        service.submit(prompt="another", idempotency_key="k")
    assert caught.value.code is grpc.StatusCode.ALREADY_EXISTS
    assert len(list(service.client.list())) == 1
    seen("one job for 101 calls; ALREADY_EXISTS for the other body")


@pytest.mark.parametrize("stage", ["queued", "running", "publishing"])
@pytest.mark.fault(number=14, fault="CancelJob while queued, running, publishing")
def test_a_cancelled_job_ends_once_and_frees_its_worker(
    service: QuickService, undisturbed: list[bytes], gate: Path, seen: Seen, stage: str
) -> None:
    point = {"queued": "embed blocker", "running": "denoise 1", "publishing": "before upload"}[stage]
    service.worker(Harm(point=point, action="wait", gate=str(gate)), config=service.with_slots(1))
    before = service.reached(point)
    if stage == "queued":
        service.submit(prompt="blocker")
    else:
        job_id = service.submit()
    wait_until(lambda: service.reached(point) > before)
    if stage == "queued":
        job_id = service.submit()
    denoised = service.reached("denoise 2")
    cancelled = service.client.cancel(job_id)
    assert cancelled.state == pb.JOB_STATE_CANCELLED
    gate.unlink()
    service.succeeded(service.submit(seed=3), undisturbed)  # the worker is free for it
    assert service.reached("denoise 2") <= denoised + (2 if stage == "queued" else 1)  # none for the cancelled one
    assert service.ended(job_id).state == pb.JOB_STATE_CANCELLED
    assert service.client.cancel(job_id).revision == service.client.get(job_id).revision
    with pytest.raises(HeliosError) as caught:
        service.client.download(job_id, gate)
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    seen(f"{stage}: one final state, no video, the worker went on to the next job within a chunk")


def test_a_job_cancelled_while_it_is_published_leaves_no_file(service: QuickService, gate: Path) -> None:
    service.worker(Harm(point="before upload", action="wait", gate=str(gate)))
    before, job_id = service.reached("before upload"), service.submit()
    wait_until(lambda: service.reached("before upload") > before)
    uploads = service.reached("after upload")
    service.client.cancel(job_id)
    gate.unlink()
    wait_until(lambda: service.reached("after upload") > uploads)
    assert service.ended(service.submit()).state == pb.JOB_STATE_SUCCEEDED
    wait_until(lambda: not list(service.artifacts.glob(f"{job_id}*")))
