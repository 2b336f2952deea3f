"""The gateway's own metrics."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from helios_services.jobs.records import Priority
from helios_services.telemetry.metrics import STAGE_BUCKETS, stage_histogram


@dataclass
class Outcome:
    """How a call ended; cancelled unless something else is said."""

    code: str = grpc.StatusCode.CANCELLED.name


class GatewayMetrics:
    """Calls, queue depth and delivery."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._stage = stage_histogram(self.registry)
        self._depth = Gauge("helios_queue_depth", "Queued jobs.", ("priority",), registry=self.registry)
        self._calls = Counter("helios_grpc_requests", "Calls ended.", ("method", "code"), registry=self.registry)
        self._active = Gauge("helios_grpc_active_requests", "Calls in progress.", ("method",), registry=self.registry)
        self._seconds = Histogram(
            "helios_grpc_request_seconds", "Time of a call.", ("method",), buckets=STAGE_BUCKETS, registry=self.registry
        )

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

    def queue_depths(self, depths: Mapping[Priority, int]) -> None:
        """The queue as it stands."""
        for priority, depth in depths.items():
            self._depth.labels(priority.value).set(depth)
