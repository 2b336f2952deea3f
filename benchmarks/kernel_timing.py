"""Times of a function on a device, and the memory bandwidth to hold them against."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

FLUSH_BYTES = 256 << 20
"""Several times the largest L2 cache; writing it takes long enough to hide the launches of what follows."""
WARM_UP = 3


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Microseconds over all repetitions: median and the 10th and 90th percentile."""

    median_us: float
    p10_us: float
    p90_us: float
    repetitions: int

    def as_json(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return asdict(self)


def time_function(run: Callable[[], object], device: torch.device, repetitions: int) -> Timing:
    """Repeats `run` after a warm-up (compilation). GPU: CUDA events, L2 emptied before each. CPU: wall clock, warm."""
    for _ in range(WARM_UP):
        run()
    on_gpu = device.type == "cuda"
    times = _cuda_us(run, device, repetitions) if on_gpu else [_wall_us(run) for _ in range(repetitions)]
    tenths = statistics.quantiles(times, n=10, method="inclusive")
    return Timing(median_us=statistics.median(times), p10_us=tenths[0], p90_us=tenths[-1], repetitions=repetitions)


def copy_bandwidth(device: torch.device, repetitions: int) -> float:
    """Bytes per second of copying a buffer far larger than the caches: each byte counts as read and as written."""
    source = torch.ones((1 << 30) if device.type == "cuda" else (128 << 20), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    timing = time_function(lambda: target.copy_(source), device, repetitions)
    return 2 * source.numel() / (timing.median_us * 1e-6)


def _cuda_us(run: Callable[[], object], device: torch.device, repetitions: int) -> list[float]:
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=device)
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repetitions)]
    for start, end in events:
        flush.zero_()
        start.record()
        run()
        end.record()
    torch.cuda.synchronize(device)
    return [1e3 * start.elapsed_time(end) for start, end in events]


def _wall_us(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return 1e6 * (time.perf_counter() - start)
