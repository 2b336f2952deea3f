"""Prometheus metrics of the gateway and of the Ray processes, and their HTTP exposition.

The dispatcher records what happens in all Ray processes (times travel with each stage's result), so one exposition
holds them.
"""

import errno
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from helios_services.jobs.records import ASIDE, Priority
from helios_services.jobs.work import Work

log = structlog.get_logger(__name__)

STAGE_BUCKETS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    1.375,
    2.0,
    3.0,
    5.0,
    10.0,
    30.0,
    120.0,
)
"""Seconds; 1.375 is the play time of a chunk at 24 FPS."""
WAIT_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
PORTS_TRIED = 10


@dataclass(frozen=True, kw_only=True)
class ChunkTiming:
    """What a finished chunk tells: seconds by stage, seconds since the chunk before it, its play time, and the seconds
    that it was to be finished in (None: its play time)."""

    stage_s: Mapping[str, float]
    interval_s: float
    duration_s: float
    num_frames: int
    objective_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class WorkerMetrics:
    """Metrics of the Ray processes, recorded by a dispatcher."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    stage: Histogram = field(init=False)
    chunk: Histogram = field(init=False)
    first_chunk: Histogram = field(init=False)
    queue_wait: Histogram = field(init=False)
    frames: Counter = field(init=False)
    missed: Counter = field(init=False)
    retries: Counter = field(init=False)
    fps: Gauge = field(init=False)
    realtime: Gauge = field(init=False)
    memory: Gauge = field(init=False)
    starts: Counter = field(init=False)
    set_aside: Counter = field(init=False)
    """Jobs that gave their worker up between two chunks, by reason: outranked, paused, ahead."""
    ready: Gauge = field(init=False)
    running: Gauge = field(init=False)
    stall: Gauge = field(init=False)
    work: Gauge = field(init=False)
    live: Gauge = field(init=False)

    def __post_init__(self) -> None:
        registry = self.registry

        def histogram(
            name: str, text: str, labels: tuple[str, ...] = (), buckets: tuple[float, ...] = WAIT_BUCKETS
        ) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=registry)

        made: dict[str, Histogram | Counter | Gauge] = {
            "stage": stage_histogram(registry),
            "chunk": histogram("helios_chunk_seconds", "Time between finished chunks of a job.", (), STAGE_BUCKETS),
            "first_chunk": histogram("helios_time_to_first_chunk_seconds", "From submission to the first chunk."),
            "queue_wait": histogram("helios_queue_wait_seconds", "From queueing to the start of an attempt."),
            "frames": Counter("helios_generated_frames", "Frames generated.", registry=registry),
            "missed": Counter(
                "helios_chunk_deadline_missed",
                "Chunks that took longer than their objective: their play time, unless set.",
                registry=registry,
            ),
            "retries": Counter("helios_stage_retries", "Stage calls repeated.", ("stage",), registry=registry),
            "fps": Gauge("helios_fps", "Frames per second of the last finished chunk.", registry=registry),
            "realtime": Gauge("helios_realtime_factor", "Play time over time of the last chunk.", registry=registry),
            "memory": Gauge(
                "helios_gpu_memory_bytes",
                "Peak device memory since its start, of the replica that answered last.",
                ("stage",),
                registry=registry,
            ),
            "set_aside": Counter(
                "helios_jobs_set_aside",
                "Jobs that gave up their worker between chunks.",
                ("reason",),
                registry=registry,
            ),
            "starts": Counter("helios_job_starts", "Attempts started.", ("priority",), registry=registry),
            "ready": Gauge(
                "helios_dispatcher_ready", "1 while every stage it needs has a replica, else 0.", registry=registry
            ),
            "running": Gauge("helios_running_jobs", "Jobs that this dispatcher drives.", registry=registry),
            "stall": Gauge(
                "helios_job_stall_seconds", "Longest time since a running job's last chunk or start.", registry=registry
            ),
            "work": Gauge(
                "helios_work_chunks", "Missing chunks of jobs that are not live.", ("state",), registry=registry
            ),
            "live": Gauge("helios_live_chunks_per_second", "Chunks that live jobs need.", registry=registry),
        }
        for name, metric in made.items():
            object.__setattr__(self, name, metric)
        for priority in Priority:  # a series that begins at 0 shows its first increase
            self.starts.labels(priority.value)
        for reason in ASIDE:
            self.set_aside.labels(reason.value)
        for stage in ("text", "denoise", "decode"):
            self.retries.labels(stage)

    def watch(self, progress: Callable[[], Collection[float]]) -> None:
        """Asks at every scrape, on its thread, when each running job last got on (time.perf_counter())."""
        self.running.set_function(lambda: len(progress()))
        self.stall.set_function(lambda: max((time.perf_counter() - at for at in progress()), default=0.0))

    def record_chunk(self, timing: ChunkTiming) -> None:
        """A chunk has been appended."""
        for stage, seconds in timing.stage_s.items():
            self.stage.labels(stage).observe(seconds)
        self.chunk.observe(timing.interval_s)
        self.frames.inc(timing.num_frames)
        self.fps.set(timing.num_frames / timing.interval_s)
        self.realtime.set(timing.duration_s / timing.interval_s)
        self.missed.inc(timing.interval_s > (timing.objective_s or timing.duration_s))

    def record_work(self, work: Work) -> None:
        """The whole model's work has been counted: every dispatcher shows the same."""
        self.work.labels("queued").set(work.queued_chunks)
        self.work.labels("running").set(work.running_chunks)
        self.live.set(work.live_chunks_per_s)

    def stage_totals(self, stage: str) -> tuple[float, float]:
        """Chunks recorded of a stage, and their seconds together."""
        count, total = (
            self.registry.get_sample_value(f"helios_chunk_stage_seconds_{name}", {"stage": stage}) or 0.0
            for name in ("count", "sum")
        )
        return count, total


def stage_histogram(registry: CollectorRegistry) -> Histogram:
    """The histogram that gateway (stage `deliver`) and dispatcher (all other stages) share by name."""
    text = "Time of a chunk's stage: queue, text, denoise, decode, encode or deliver."
    return Histogram("helios_chunk_stage_seconds", text, ("stage",), buckets=STAGE_BUCKETS, registry=registry)


def serve_metrics(registry: CollectorRegistry, host: str, port: int) -> int:
    """Serves the exposition over HTTP; returns the port. A taken port is skipped for one of the next nine; 0 is any."""
    for candidate in range(port, port + PORTS_TRIED):
        try:
            server, _ = start_http_server(candidate, host, registry)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port == 0:
                raise
            continue
        bound = int(server.server_port)
        log.info("metrics_served", host=host, port=bound)
        return bound
    raise OSError(errno.EADDRINUSE, f"ports {port} to {port + PORTS_TRIED - 1} are all in use")
