"""What a gateway tells of its store and of delivery. Its calls are counted by its doors: guard/metrics.py."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from helios_services.jobs.records import Priority
from helios_services.jobs.state import FINAL, JobState
from helios_services.telemetry.metrics import stage_histogram


class GatewayMetrics(Collector):
    """Queue depth and delivery."""

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
