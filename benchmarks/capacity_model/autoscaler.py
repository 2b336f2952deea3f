"""The scaling rule: see `inputs.Scaling`."""

from collections import deque
from math import ceil

from benchmarks.capacity_model.arrivals import Arrival, mean
from benchmarks.capacity_model.inputs import Fleet, Scaling, StageTimes


class Autoscaler:
    """Says how many denoisers there should be."""

    def __init__(self, rule: Scaling, fleet: Fleet, times: StageTimes) -> None:
        self.rule, self._fleet, self._times = rule, fleet, times
        self._recent: deque[tuple[float, float]] = deque()
        self._recent_s = 0.0
        self._up_since_s: float | None = None
        self._down_since_s: float | None = None

    def came(self, now_s: float, arrival: Arrival) -> None:
        """A job has arrived."""
        self._recent.append((now_s, work_s := self.denoiser_s(arrival)))
        self._recent_s += work_s

    def denoiser_s(self, arrival: Arrival) -> float:
        """What a job will take of denoisers: its chunks times a replica's seconds per chunk."""
        call_s = mean(self._times.denoise_s) * arrival.kind.denoise_factor + self._times.call_s
        if arrival.session_s:
            return arrival.kind.session_s  # nobody knows how long it stays: the mean
        return arrival.chunks * call_s

    def target(self, now_s: float, current: int, queued_s: float) -> int:
        """Denoisers that there should be, once that has been so for the delay. queued_s: of denoisers, in the queue."""
        rule = self.rule
        while self._recent and self._recent[0][0] < now_s - rule.window_s:
            self._recent_s -= self._recent.popleft()[1]
        busy = self._recent_s / min(rule.window_s, max(now_s, rule.interval_s)) + queued_s / rule.drain_s
        wanted = min(max(ceil(busy / rule.target_utilisation), rule.min_denoisers), rule.max_denoisers)
        self._up_since_s = (self._up_since_s or now_s) if wanted > current else None
        self._down_since_s = (self._down_since_s or now_s) if wanted < current else None
        if self._up_since_s is not None and now_s - self._up_since_s >= rule.upscale_delay_s:
            return wanted
        if self._down_since_s is not None and now_s - self._down_since_s >= rule.downscale_delay_s:
            return wanted
        return current

    def decoders(self, denoisers: int) -> int:
        """Decoders beside so many denoisers: in the fleet's ratio."""
        return max(ceil(denoisers * self._fleet.decoders / self._fleet.denoisers), 1)

    def slots(self, denoisers: int) -> int:
        """Slots beside so many denoisers: dispatchers come and go with them."""
        return max(round(denoisers * (self._fleet.slots or self._fleet.denoisers) / self._fleet.denoisers), 1)
