"""Logs are JSON lines with the job's id; a taken metrics port is skipped."""

import json
import subprocess
import sys
import time
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from helios_services.gateway.guard.metrics import CallMetrics
from helios_services.gateway.metrics import GatewayMetrics
from helios_services.jobs.embedded import free_port
from helios_services.jobs.records import Priority
from helios_services.jobs.state import JobState
from helios_services.telemetry.metrics import ChunkTiming, WorkerMetrics, serve_metrics

SCRIPT = """
import structlog
from helios_services.telemetry.logs import configure_logging
configure_logging("info")
log = structlog.get_logger("x").bind(job_id="j1")
log.debug("hidden")
log.info("chunk_done", chunk=3)
"""


def test_logs_are_json_lines_from_the_configured_level_on() -> None:
    lines = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    ).stderr.splitlines()
    (entry,) = [json.loads(line) for line in lines]
    assert (entry["event"], entry["job_id"], entry["chunk"], entry["level"]) == ("chunk_done", "j1", 3, "info")
    assert "timestamp" in entry


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_taken_ports_are_skipped_and_the_exposition_is_served() -> None:
    first = serve_metrics(CollectorRegistry(), "127.0.0.1", free_port())
    metrics = WorkerMetrics()
    metrics.record_chunk(ChunkTiming(stage_s={"denoise": 0.5}, interval_s=2.0, duration_s=1.375, num_frames=33))
    second = serve_metrics(metrics.registry, "127.0.0.1", first)
    assert first < second < first + 10
    with urllib.request.urlopen(f"http://127.0.0.1:{second}/metrics", timeout=60) as response:
        text = response.read().decode()
    for line in (
        "helios_generated_frames_total 33.0",
        "helios_fps 16.5",
        "helios_realtime_factor 0.6875",
        "helios_chunk_deadline_missed_total 1.0",
        'helios_chunk_stage_seconds_sum{stage="denoise"} 0.5',
    ):
        assert line in text


def test_a_chunk_has_missed_its_objective_or_else_its_play_time() -> None:
    metrics = WorkerMetrics()
    for interval_s, objective_s in ((1.4, None), (1.3, None), (1.4, 1.5), (1.6, 1.5)):
        timing = ChunkTiming(
            stage_s={}, interval_s=interval_s, duration_s=1.375, num_frames=33, objective_s=objective_s
        )
        metrics.record_chunk(timing)
    assert metrics.registry.get_sample_value("helios_chunk_deadline_missed_total") == 2


def test_running_jobs_and_the_longest_stall_are_asked_for_at_each_scrape() -> None:
    metrics, progress = WorkerMetrics(), [time.perf_counter() - 1000, time.perf_counter() - 5]
    metrics.watch(lambda: progress)
    read = metrics.registry.get_sample_value

    def check_stall(since: float) -> None:
        least_s = time.perf_counter() - since
        stall_s = read("helios_job_stall_seconds")
        assert stall_s is not None
        assert least_s <= stall_s <= time.perf_counter() - since

    assert read("helios_running_jobs") == 2
    check_stall(progress[0])
    progress.pop(0)
    check_stall(progress[0])
    progress.clear()
    assert (read("helios_running_jobs"), read("helios_job_stall_seconds")) == (0, 0)


def test_counters_with_labels_begin_at_zero_so_that_their_first_increase_is_seen() -> None:
    text = generate_latest(WorkerMetrics().registry).decode()
    for priority in Priority:
        assert f'helios_job_starts_total{{priority="{priority.value}"}} 0.0' in text
    assert 'helios_stage_retries_total{stage="denoise"} 0.0' in text
    registry = CollectorRegistry()
    CallMetrics(registry, "grpc")
    text = generate_latest(registry).decode()
    assert 'helios_grpc_requests_total{code="RESOURCE_EXHAUSTED",method="SubmitJob"} 0.0' in text
    assert 'helios_grpc_request_seconds_count{method="GetJob"} 0.0' in text


def test_a_gateway_that_has_not_read_the_store_exposes_no_ended_jobs() -> None:
    metrics = GatewayMetrics(max_queued=7)
    read = metrics.registry.get_sample_value
    assert read("helios_jobs_total", {"state": "failed"}) is None
    assert (read("helios_queue_limit"), read("helios_job_store_up")) == (7, 0)
    metrics.store({Priority.BATCH: 3}, {JobState.FAILED: 40}, 2)
    assert read("helios_jobs_total", {"state": "failed"}) == 40
    assert (read("helios_job_store_up"), read("helios_dead_letters")) == (1, 2)
    metrics.store_lost()
    assert (read("helios_job_store_up"), read("helios_queue_depth", {"priority": "batch"})) == (0, 3)
