"""Workers that are not there yet, die in part, and die whole. Each test sees the service from outside, through gRPC.

Invariant: every accepted job ends exactly once, its chunks are numbered without gap or repeat, and its video is bit for
bit the undisturbed one. The tests share one service and run in order.
"""

import io
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import psutil
import pytest
from faults.conftest import JOB, Seen, Service

from helios.v1 import video_generation_pb2 as pb
from helios_services.client import HeliosClient, Segment

TRIES = 5
"""At finding a job in progress, which a process that is seldom scheduled can miss."""


def finished(client: HeliosClient, job_id: str) -> pb.Job:
    """The job after its end; it must have succeeded."""
    *_, job = client.watch(job_id)
    assert job.state == pb.JOB_STATE_SUCCEEDED, job
    assert job.chunks_done == job.chunks_total == 5
    return job


def check_segments(segments: list[Segment]) -> None:
    """Init segment first, then every chunk once."""
    assert segments[0].info is None
    assert [segment.info.index for segment in segments[1:] if segment.info] == list(range(5))


def begun(client: HeliosClient) -> list[str]:
    """Two jobs that run and two that are queued behind them."""
    for _ in range(TRIES):
        jobs = [client.submit(**JOB).id for _ in range(4)]
        next((job for job in client.watch(jobs[0]) if job.state == pb.JOB_STATE_RUNNING), None)
        if client.get(jobs[-1]).state == pb.JOB_STATE_QUEUED:
            return jobs
        for job_id in jobs:  # they were faster than this process could look
            finished(client, job_id)
    pytest.fail("no job was left in the queue")


@pytest.fixture(scope="module")
def undisturbed(client: HeliosClient, service: Service) -> list[bytes]:
    """The video's segments when nothing goes wrong; the job is submitted before any worker runs."""
    job = client.submit(**JOB)
    assert job.state == pb.JOB_STATE_QUEUED
    with ThreadPoolExecutor(1) as pool:
        streamed = pool.submit(lambda: list(client.stream(job.id)))  # open before there is anything to deliver
        service.start_worker()
        segments = streamed.result()
    check_segments(segments)
    finished(client, job.id)
    return [segment.data for segment in segments]


@pytest.mark.fault(number=11, fault="a job submitted, and its stream opened, before the first worker ever starts")
def test_a_job_submitted_before_any_worker_runs_is_executed(
    client: HeliosClient, undisturbed: list[bytes], tmp_path: Path, seen: Seen
) -> None:
    (job,) = client.list()
    assert job.attempts == 1
    size = client.download(job.id, tmp_path / "video.mp4")
    assert size == job.video_bytes
    for source in (str(tmp_path / "video.mp4"), io.BytesIO(b"".join(undisturbed))):
        with av.open(source) as container:
            times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
            assert (container.streams.video[0].width, container.streams.video[0].height) == (128, 64)
        assert len(times) == 165
        assert times == sorted(set(times))
    seen(f"executed once; {len(times)} frames in {job.chunks_done} chunks, in the stream and in the file")


def test_each_side_has_one_exposition_with_the_named_metrics(service: Service, undisturbed: list[bytes]) -> None:
    worker, gateway = service.metrics("worker"), service.metrics("gateway")
    for stage in ("queue", "text", "denoise", "decode", "encode"):
        assert f'helios_chunk_stage_seconds_bucket{{le="0.001",stage="{stage}"}}' in worker
    for name in (
        "helios_chunk_seconds_count 5.0",
        "helios_time_to_first_chunk_seconds_count 1.0",
        "helios_generated_frames_total 165.0",
        "helios_queue_wait_seconds_count 1.0",
        "helios_fps ",
        "helios_realtime_factor ",
        "helios_chunk_deadline_missed_total ",
        'helios_gpu_memory_bytes{stage="denoise"} 0.0',
    ):
        assert f"\n{name}" in worker
    assert 'helios_chunk_stage_seconds_count{stage="deliver"} 5.0' in gateway
    assert 'helios_queue_depth{priority="interactive"} 0.0' in gateway
    assert 'helios_jobs_total{state="succeeded"} ' in gateway


@pytest.mark.fault(number=19, fault="the denoiser's replica SIGKILLed in mid-job (real Ray)")
def test_a_killed_denoiser_costs_no_chunk_and_no_bit(
    client: HeliosClient, service: Service, undisturbed: list[bytes], seen: Seen
) -> None:
    job = client.submit(**JOB)
    segments = []
    for segment in client.stream(job.id):
        segments.append(segment)
        if segment.info is not None and segment.info.index == 1:
            service.replica("denoiser").send_signal(signal.SIGKILL)
    check_segments(segments)
    assert [segment.data for segment in segments] == undisturbed
    assert finished(client, job.id).attempts == 1  # the dispatcher repeated the call, the job did not start again
    seen("5 of 5 chunks, bit-identical, 1 attempt at the job")


@pytest.mark.fault(number=1, fault="a whole worker SIGKILLed in mid-chunk, all its processes at once (real Ray)")
def test_a_killed_worker_is_replaced_and_the_job_resumes(
    client: HeliosClient, service: Service, undisturbed: list[bytes], seen: Seen
) -> None:
    for _ in range(TRIES):
        job, in_time = client.submit(**JOB), False
        segments = []
        for segment in client.stream(job.id):
            segments.append(segment)
            if segment.info is not None and segment.info.index == 1:
                service.kill_worker()
                state = client.get(job.id).state
                assert state != pb.JOB_STATE_QUEUED  # nobody knows yet
                in_time = state == pb.JOB_STATE_RUNNING  # else this process was slower than the job
                service.start_worker()
        if in_time:
            break
    check_segments(segments)
    assert [segment.data for segment in segments] == undisturbed
    assert finished(client, job.id).attempts == 2
    seen("resumed at its checkpoint: 5 of 5 chunks, bit-identical, 2 attempts")


@pytest.mark.fault(number=20, fault="the Serve controller SIGKILLed while two jobs run and two are queued")
def test_a_killed_controller_disturbs_no_job(
    client: HeliosClient, service: Service, undisturbed: list[bytes], seen: Seen
) -> None:
    jobs = begun(client)
    (controller,) = service.processes("ray::ServeController")
    controller.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs([controller], timeout=120)
    assert not alive
    for job_id in jobs:
        assert [segment.data for segment in client.stream(job_id)] == undisturbed
        assert finished(client, job_id).attempts == 1
    seen("4 of 4 jobs succeeded at their first attempt, bit-identical")


@pytest.mark.fault(number=20, fault="the Ray head (GCS and raylet) SIGKILLed while two jobs run and two are queued")
def test_a_lost_head_ends_the_worker_and_the_next_one_goes_on(
    client: HeliosClient, service: Service, undisturbed: list[bytes], seen: Seen
) -> None:
    jobs = begun(client)
    assert service.worker is not None
    everything = service.worker_processes()
    head = [*service.processes("gcs_server"), *service.processes("raylet")]
    assert len(head) == 2
    for process in head:
        process.send_signal(signal.SIGKILL)
    died_s = time.monotonic()
    service.worker.ended(200)  # by itself: it is for its supervisor to start another
    lasted_s = time.monotonic() - died_s
    _, alive = psutil.wait_procs(everything, timeout=60)
    assert alive == []
    service.forget_worker()
    service.start_worker()
    for job_id in jobs:
        assert [segment.data for segment in client.stream(job_id)] == undisturbed
    attempts = [finished(client, job_id).attempts for job_id in jobs]
    seen(f"the worker ended by itself in {lasted_s:.0f} s; with the next 4 of 4 jobs, bit-identical; {attempts=}")


def test_sigterm_gives_the_job_back_and_leaves_no_process(client: HeliosClient, service: Service) -> None:
    for _ in range(TRIES):
        job = client.submit(**JOB)
        stream = client.stream(job.id)
        next(stream)
        next(stream)
        service.end_worker()
        given_back = client.get(job.id)
        if given_back.state != pb.JOB_STATE_SUCCEEDED:
            break
        service.start_worker()  # this process was slower than the job: once more
    assert given_back.state == pb.JOB_STATE_QUEUED
    assert given_back.attempts == 0
    service.start_worker()
    check = [segment.info.index for segment in stream if segment.info is not None]
    assert check == [1, 2, 3, 4]
    finished(client, job.id)
