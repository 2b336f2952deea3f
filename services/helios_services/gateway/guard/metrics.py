"""Calls of one door, counted and timed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from helios_services.gateway.guard.caller import SCOPES
from helios_services.gateway.guard.refusal import Code
from helios_services.telemetry.metrics import STAGE_BUCKETS

WATCHED_CODES = ("OK", "RESOURCE_EXHAUSTED", "INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS")
"""What alerts and objectives ask for; other codes get a series with their first call."""


@dataclass
class Outcome:
    """How a call ended; cancelled unless something else is said."""

    code: Code = Code.CANCELLED


class CallMetrics:
    """helios_<door>_requests, helios_<door>_active_requests and helios_<door>_request_seconds, by method."""

    def __init__(self, registry: CollectorRegistry, door: str) -> None:
        name = f"helios_{door}"
        self._calls = Counter(f"{name}_requests", "Calls ended.", ("method", "code"), registry=registry)
        self._active = Gauge(f"{name}_active_requests", "Calls in progress.", ("method",), registry=registry)
        self._seconds = Histogram(
            f"{name}_request_seconds", "Time of a call.", ("method",), buckets=STAGE_BUCKETS, registry=registry
        )
        for method in SCOPES:  # a series that begins at 0 shows its first increase
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
            self._calls.labels(method, outcome.code.name).inc()
            self._seconds.labels(method).observe(time.perf_counter() - start)
