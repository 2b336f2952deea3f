"""Times contestants against each other fairly: after warm-ups, in turn, with medians and the whole spread.

On one CPU thread the clock is that thread's CPU time, which other programs on the machine do not take part in; wall
time is recorded beside it. With more threads it is wall time, as waiting threads spin. On a GPU it is CUDA events.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from helios_engine.ops import onednn

MATMUL = 2048


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds by the clock that the device calls for, and wall seconds, of each run.

    peak_bytes: most bytes of GPU memory beyond those that were allocated before the run.
    """

    seconds: tuple[float, ...]
    wall_s: tuple[float, ...]
    peak_bytes: int | None = None

    @property
    def median(self) -> float:
        """What is quoted."""
        return statistics.median(self.seconds)

    def record(self) -> dict[str, Any]:
        """The figures as JSON values, in seconds."""
        wall = {"median": statistics.median(self.wall_s), "min": min(self.wall_s), "max": max(self.wall_s)}
        spread = {"median": self.median, "min": min(self.seconds), "max": max(self.seconds), "runs": len(self.seconds)}
        memory = {} if self.peak_bytes is None else {"peak_bytes": self.peak_bytes}
        return {**spread, "wall": wall, **memory}


def clock_name(device: str) -> str:
    """Which clock `measure` uses."""
    if device == "cuda":
        return "CUDA events"
    return "CPU time of the one thread" if torch.get_num_threads() == 1 else "wall time"


@torch.inference_mode()
def measure(
    contestants: Mapping[str, Callable[[], object]], *, device: str, runs: int, warmups: int = 1
) -> dict[str, Timing]:
    """Runs all contestants once per round, so that a machine whose speed drifts drifts for all of them."""
    for _ in range(warmups):
        for contestant in contestants.values():
            contestant()
    rounds = [{name: _once(contestant, device) for name, contestant in contestants.items()} for _ in range(runs)]
    return {
        name: Timing(
            seconds=tuple(done[name][0] for done in rounds),
            wall_s=tuple(done[name][1] for done in rounds),
            peak_bytes=max(done[name][2] for done in rounds) if device == "cuda" else None,
        )
        for name in contestants
    }


def matmul_peak(device: str, dtype: torch.dtype, runs: int = 15, side: int | None = None) -> float:
    """FLOP/s of a large square matrix product: the best run of the best library, as it is what others fall short of.

    In float32 on a GPU it runs in TF32, as torch's convolutions do there.
    """
    side = side or (MATMUL if device == "cpu" else 4 * MATMUL)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    layer = onednn.Linear(side, side, bias=False, device="meta")
    layer.weight = torch.nn.Parameter(b, requires_grad=False)
    with tf32(matmul=True):
        timings = measure({"torch": lambda: a @ b, "layer": lambda: layer(a)}, device=device, runs=runs)
    return 2 * side**3 / min(min(timing.seconds) for timing in timings.values())


@contextmanager
def tf32(*, matmul: bool | None = None, convolutions: bool | None = None) -> Iterator[None]:
    """float32 on a GPU in TF32 or not; None: as it is (torch's defaults: convolutions only)."""
    switches: list[tuple[Any, bool | None]] = [
        (torch.backends.cuda.matmul, matmul),
        (torch.backends.cudnn, convolutions),
    ]
    before = [backend.allow_tf32 for backend, _ in switches]
    try:
        for backend, allowed in switches:
            if allowed is not None:
                backend.allow_tf32 = allowed
        yield
    finally:
        for (backend, _), was in zip(switches, before, strict=True):
            backend.allow_tf32 = was


def _once(contestant: Callable[[], object], device: str) -> tuple[float, float, int]:
    """Seconds, wall seconds, peak bytes."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        wall = time.perf_counter()
        start.record()
        contestant()
        end.record()
        torch.cuda.synchronize()
        wall_s, peak_bytes = time.perf_counter() - wall, torch.cuda.max_memory_allocated() - before
        return start.elapsed_time(end) / 1e3, wall_s, peak_bytes
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    wall, started = time.perf_counter(), clock()
    contestant()
    return clock() - started, time.perf_counter() - wall, 0
