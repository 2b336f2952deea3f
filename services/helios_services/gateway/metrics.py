"""The gateway's own metrics."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from helios.v1 import video_generation_pb2 as pb
from helios_services.jobs.records import Priority
from helios_services.jobs.state import FINAL, JobState
from helios_services.telemetry.metrics import STAGE_BUCKETS, stage_histogram

METHODS = tuple(pb.DESCRIPTOR.services_by_name["VideoGeneration"].methods_by_name)
WATCHED_CODES = ("OK", "RESOURCE_EXHAUSTED", "INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS")
"""What alerts and objectives ask for; other codes get a series with their first call."""


@dataclass
class Outcome:
    """How a call ended; cancelled unless something else is said."""

    code: str = grpc.StatusCode.CANCELLED.name


class GatewayMetrics(Collector):
    """Calls, queue depth and delivery."""

    def __init__(self, max_queued: int = 0) -> None:
        self.registry = CollectorRegistry()
        self._ended: dict[JobState, int] | None = None
        self.registry.register(self)
        self._stage = stage_histogram(self.registry)
        self._depth = Gauge("helios_queue_depth", "Queued jobs.", ("priority",), registry=self.registry)
        Gauge("helios_queue_limit", "Queued jobs beyond which submissions are refused.", registry=self.registry).set(
            max_queued
        )
        self._dead_letters = Gauge(
            "helios_dead_letters", "Failed jobs that can be queued again.", registry=self.registry
        )
        self._store_up = Gauge("helios_job_store_up", "1 if the job store answered last.", registry=self.registry)
        self._calls = Counter("helios_grpc_requests", "Calls ended.", ("method", "code"), registry=self.registry)
        self._active = Gauge("helios_grpc_active_requests", "Calls in progress.", ("method",), registry=self.registry)
        self._seconds = Histogram(
            "helios_grpc_request_seconds", "Time of a call.", ("method",), buckets=STAGE_BUCKETS, registry=self.registry
        )
        for method in METHODS:  # a series that begins at 0 shows its first increase
            self._seconds.labels(method)
            self._active.labels(method)
            for code in WATCHED_CODES:
                self._calls.labels(method, code)

    @contextmanager
    def call(self, method: str) -> Iterator[Outcome]:
        """Counts and times one call."""
        start, outcome = time.perf_counter(), Outcome()
        self._active.labels(method).inc()
        try:
            yield outcome
        finally:
            self._active.labels(method).dec()
            self._calls.labels(method, outcome.code).inc()
            self._seconds.labels(method).observe(time.perf_counter() - start)

    def delivered(self, seconds: float) -> None:
        """A chunk was handed to a live client this long after it became ready."""
        self._stage.labels("deliver").observe(max(seconds, 0.0))

    def store(self, depths: Mapping[Priority, int], ended: Mapping[JobState, int], dead_letters: int) -> None:
        """The queue as it stands, and the jobs ended so far. The same from every gateway of a store."""
        self._dead_letters.set(dead_letters)
        for priority, depth in depths.items():
            self._depth.labels(priority.value).set(depth)
        self._ended = dict(ended)
        self._store_up.set(1)

    def store_lost(self) -> None:
        """The store did not answer; what it said last stays exposed."""
        self._store_up.set(0)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Called by the registry: the counter that the store keeps.

        Nothing before the store was read: a jump from 0 would look like that many jobs ending at once.
        """
        if self._ended is None:
            return
        family = CounterMetricFamily("helios_jobs", "Jobs ended, by final state.", labels=("state",))
        for state in sorted(FINAL):
            family.add_metric((state.value,), self._ended.get(state, 0))
        yield family
