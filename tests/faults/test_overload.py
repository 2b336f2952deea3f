"""More work than there are workers, and work whose time is over. Stand-in workers, real everything else."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import yaml
from faults.conftest import Seen
from faults.quick_service import JOB, JOBS, QuickService
from faults.stand_in_worker import Harm

from helios.v1 import video_generation_pb2 as pb
from helios_services.client import Connection, HeliosClient, HeliosError
from helios_services.gateway.guard.caller import Scope
from helios_services.gateway.guard.keys import Quotas, new_key
from support.redis_servers import RedisServer
from support.waiting import wait_until

QUEUE, EACH, JOBS_MADE = 40, 15, 80
SLOTS = 2


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    yield server
    server.close()


@pytest.mark.fault(number=17, fault="a call's deadline passes while its job waits behind another (stand-in stages)")
def test_a_job_whose_call_has_run_out_of_time_is_not_started(redis: RedisServer, tmp_path: Path, seen: Seen) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    with QuickService(tmp_path, redis.url) as service:
        config = service.with_slots(1)
        service.worker(Harm(point="denoise 1", action="wait", gate=str(gate)), config=config)
        busy = service.submit(prompt="busy")
        wait_until(lambda: service.client.get(busy).chunks_done == 1)
        request = pb.GenerateVideoRequest(
            job=pb.SubmitJobRequest(params=pb.GenerationParams(**JOB | {"prompt": "late"}), labels={"name": "late"})
        )
        made: list[pb.Job] = []
        for timeout_s in (2.0, 10.0, 60.0):
            with pytest.raises(grpc.RpcError) as caught:
                list(service.client._stub.GenerateVideo(request, timeout=timeout_s))
            assert isinstance(caught.value, grpc.Call)
            assert caught.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED)
            made = [job for job in service.client.list() if job.labels == {"name": "late"}]
            if made:
                break  # else the time was over before there was a job
        assert made
        ended = [service.ended(late.id) for late in made]  # one, unless its submission outran the look for it
        assert {(job.state, job.error.reason) for job in ended} == {(pb.JOB_STATE_FAILED, "DEADLINE_EXCEEDED")}
        gate.unlink()
        assert service.ended(busy).state == pb.JOB_STATE_SUCCEEDED
        after = service.submit(prompt="after")
        assert service.ended(after).state == pb.JOB_STATE_SUCCEEDED
        assert "embed late" not in service.journal.read_text()
        assert {job.attempts for job in ended} == {0}
    seen("failed with DEADLINE_EXCEEDED, 0 attempts; no stage was called for it")


@pytest.mark.fault(number=17, fault="a job's deadline passes in mid-chunk (stand-in stages)")
def test_a_job_in_progress_ends_at_its_deadline(redis: RedisServer, tmp_path: Path, seen: Seen) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    with QuickService(tmp_path, redis.url) as service:
        service.worker(Harm(point="denoise 1", action="wait", gate=str(gate)), config=service.with_slots(1))
        job_id = service.client.submit(**JOB, timeout_s=600.0).id
        wait_until(lambda: service.client.get(job_id).chunks_done == 1 and service.reached("denoise 1"))
        now_ms = int(service.server_time_s() * 1000)
        service.redis.hset(service.key("job", job_id), "deadline_ms", now_ms)
        service.redis.zadd(service.key("deadlines"), {job_id: now_ms})
        ended = service.ended(job_id)
        assert (ended.state, ended.error.reason, ended.chunks_done) == (pb.JOB_STATE_FAILED, "DEADLINE_EXCEEDED", 1)
        overdue_s = ended.end_time.ToMilliseconds() / 1e3 - ended.deadline.ToMilliseconds() / 1e3
        gate.unlink()
        assert service.ended(service.submit()).state == pb.JOB_STATE_SUCCEEDED  # the worker is free again
        assert service.client.get(job_id) == ended
    seen(f"ended {overdue_s:.1f} s after its deadline with the chunk it had; the worker's late writes changed nothing")


@pytest.mark.fault(number=21, fault="eight submitters of one key, one of another, ten times the work (stand-in stages)")
def test_ten_times_the_load_is_refused_quickly_and_shared_fairly(
    redis: RedisServer, tmp_path: Path, seen: Seen
) -> None:
    keys = {name: new_key(name, name, frozenset(Scope), quotas=Quotas(max_queued=EACH)) for name in ("loud", "quiet")}
    file = tmp_path / "keys.yaml"
    file.write_text(yaml.safe_dump({"keys": [entry.model_dump(mode="json") for _, entry in keys.values()]}))
    stop, waits, codes = threading.Event(), list[float](), list[grpc.StatusCode]()
    jobs = JOBS.model_copy(update={"max_queued": QUEUE, "fair_quantum_chunks": 1.0})
    with QuickService(tmp_path, redis.url, jobs=jobs, gateway={"api_keys_file": str(file)}) as service:

        def flood(name: str) -> int:
            accepted = 0
            with HeliosClient(service.gateway.address, Connection(api_key=keys[name][0])) as client:
                while not stop.is_set():
                    start = time.monotonic()
                    try:
                        client.submit(**JOB | {"num_frames": 33})
                        accepted += 1
                    except HeliosError as error:
                        waits.append(time.monotonic() - start)
                        codes.append(error.code)
                        time.sleep(0.01)
            return accepted

        def made() -> list[str]:
            """Whose jobs were finished, in order."""
            ends = []
            for name, (key, _) in keys.items():
                with HeliosClient(service.gateway.address, Connection(api_key=key)) as client:
                    jobs = client.list(states=("succeeded",), page_size=500)
                    ends += [(job.end_time.ToMilliseconds(), name) for job in jobs]
            return [name for _, name in sorted(ends)]

        with ThreadPoolExecutor(9) as pool:
            submitters = [pool.submit(flood, "loud") for _ in range(8)] + [pool.submit(flood, "quiet")]
            wait_until(lambda: depth(service) == 2 * EACH)  # both have as much waiting as they may
            service.worker(chunk_s=0.2, config=service.with_slots(SLOTS))
            deepest = 0
            while len(made()) < JOBS_MADE or len(waits) < 10 * JOBS_MADE:
                deepest = max(deepest, depth(service))
                time.sleep(0.05)
            stop.set()
            accepted = sum(submitter.result() for submitter in submitters)
        done = Counter(made()[:JOBS_MADE])
        assert deepest <= QUEUE
        assert set(codes) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert abs(done["loud"] - done["quiet"]) <= 1 + 2 * SLOTS  # the quantum, jobs in progress
    refused_ms = sorted(waits)[int(len(waits) * 0.99)] * 1000
    seen(
        f"{accepted} accepted, {len(waits)} refused (p99 {refused_ms:.0f} ms); at most {deepest} queued of {QUEUE};"
        f" finished {done['loud']} for the loud key, {done['quiet']} for the quiet one"
    )


def depth(service: QuickService) -> int:
    """Queued jobs, as Redis has them."""
    return sum(int(service.redis.zcard(queue)) for queue in service.redis.scan_iter(service.key("queue", "*")))
