"""One row of the engine's benchmark: the check, what is compiled for it, the times and the memory."""

import gc
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch

from benchmarks.peers import Peers, weight_bytes
from benchmarks.records import FAILED, NOT_MEASURED, failed
from benchmarks.rows import Row
from benchmarks.sizes import Size
from benchmarks.timing import Timing, measure, tf32

OURS, EAGER, COMPILED = "ours", "diffusers eager", "diffusers compiled"
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""Relative differences that rounding in another order stays under."""
CONVOLUTION_TOLERANCE = 1e-3
"""The same for the VAE in float32 on a GPU, with TF32 off: cuDNN may choose algorithms that round more."""
FRAME_TOLERANCE = 5e-3
"""The same for frames in 8 bits from latents in float32: half a level each at most."""
AGAIN_S = 60
"""For the first call of what should need no more compiling."""


@dataclass
class CompileBudget:
    """until: when compiling has to stop (time.monotonic). compiled, failed: the parts that were, and could not be."""

    until: float
    compiled: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)

    def seconds_for(self, costs: Iterable[str]) -> int:
        """How long the first compiled call may take; 0 or less: there must be none."""
        left = int(self.until - time.monotonic())
        return max(left, AGAIN_S) if self.compiled.issuperset(costs) else left


def measure_row(
    row: Row, peers: Peers, other: Any, size: Size, runs: int, budget: CompileBudget | None
) -> dict[str, Any]:
    """Difference of the results, times and memory. other: diffusers' pipeline to compile; budget None: do not.

    Raises what ours raises; what diffusers raises is recorded.
    """
    contestants: dict[str, Callable[[], object]] = {OURS: row.ours}
    record = _compared(row, peers, size)
    if isinstance(record.get(EAGER), str):
        _release(size)
    else:
        contestants[EAGER] = lambda: row.theirs(peers.diffusers)
    record[COMPILED] = NOT_MEASURED
    left = budget.seconds_for(row.costs) if budget else 0
    if budget and budget.failed.intersection(row.costs):
        record[COMPILED] = f"{FAILED}a part of it did not compile"
    elif budget and left > 0:
        before = time.perf_counter()
        try:
            with torch.inference_mode(), time_limit(left):
                row.theirs(other)
            budget.compiled |= set(row.costs)
            contestants[COMPILED] = lambda: row.theirs(other)
            record["compile_s"] = time.perf_counter() - before
        except Exception as failure:  # whatever the compiler raises: the row says so
            record[COMPILED] = failed(failure)
            budget.failed |= set(row.costs) - budget.compiled
        _release(size)
    warmups = int(size.device == "cuda")
    try:
        timings = measure(contestants, device=size.device, runs=runs, warmups=warmups)
    except Exception as failure:
        if COMPILED not in contestants:
            raise
        record[COMPILED] = failed(failure)
        del contestants[COMPILED]
        _release(size)
        timings = measure(contestants, device=size.device, runs=runs, warmups=warmups)
    record |= {name: timing.record() for name, timing in timings.items()}
    record["ratio"] = {name: _ratio(timings[OURS], timing) for name, timing in timings.items() if name != OURS}
    if size.device == "cuda":
        record["memory"] = memory(row, peers, timings)
    if row.frames:
        record["fps"] = {name: row.frames / timing.median for name, timing in timings.items()}
    return record


def _compared(row: Row, peers: Peers, size: Size) -> dict[str, Any]:
    """How far the results are apart; in float32 on a GPU without TF32, and as they are timed besides."""
    on_gpu = size.device == "cuda"
    try:
        with tf32(convolutions=False if row.float32 else None):
            record: dict[str, Any] = {"relative_error": _error(row, peers)}
        if row.float32 and on_gpu:
            record["relative_error_with_tf32"] = _error(row, peers)
    except TheirFailure as failure:
        return {EAGER: failed(failure.__cause__ or failure)}
    limit = TOLERANCES[torch.float32 if row.float32 else size.dtype]
    if row.float32 and on_gpu:
        limit = CONVOLUTION_TOLERANCE
    record["tolerance"] = max(limit, FRAME_TOLERANCE) if row.frames else limit
    if not record["relative_error"] < record["tolerance"]:
        record["differs"] = True  # the page says so beside the times
        print(f"{row.name}: relative error {record['relative_error']:.1e}", file=sys.stderr, flush=True)
    return record


class TheirFailure(Exception):
    """What diffusers raised is its cause."""


@torch.inference_mode()
def _error(row: Row, peers: Peers) -> float:
    ours = row.ours().cpu().double().flatten()
    try:
        theirs = row.theirs(peers.diffusers).cpu().double().flatten()
    except Exception as failure:
        raise TheirFailure from failure
    shared = min(len(ours), len(theirs))  # diffusers drops the last frames of a video
    return float((ours[:shared] - theirs[:shared]).norm() / theirs[:shared].norm())


def memory(row: Row, peers: Peers, timings: dict[str, Timing]) -> dict[str, dict[str, int]]:
    """Bytes of each: weights of the row's parts with what is kept between calls, and at most beside these.

    CUDA graphs work in memory that they keep, so ours is measured in a run without them.
    """
    ours, theirs = _modules(row, peers)
    kept = sum(tensor.untyped_storage().nbytes() for tensor in row.kept)
    working = {name: timing.peak_bytes or 0 for name, timing in timings.items()}
    if any(cost.startswith("dit") for cost in row.costs):
        with mock.patch.object(peers.ours.denoiser, "_graphs", None):
            working[OURS] = measure({OURS: row.ours}, device="cuda", runs=1)[OURS].peak_bytes or 0
    weights = {name: weight_bytes(*(ours if name == OURS else theirs)) for name in timings}
    weights[OURS] += kept
    return {name: {"kept_bytes": weights[name], "working_bytes": working[name]} for name in timings}


def _modules(row: Row, peers: Peers) -> tuple[list[Any], list[Any]]:
    ours, theirs = peers.ours, peers.diffusers
    owners = {
        "text": ([ours.text_encoder.model], [theirs.text_encoder]),
        "dit": ([ours.denoiser.transformer], [theirs.transformer]),
        "vae decode": ([ours.decoder.model], [theirs.vae.decoder, theirs.vae.post_quant_conv]),
        "vae encode": ([ours.encoder.model], [theirs.vae.encoder, theirs.vae.quant_conv]),
    }
    needed = [pair for part, pair in owners.items() if any(cost.startswith(part) for cost in row.costs)]
    return [m for pair in needed for m in pair[0]], [m for pair in needed for m in pair[1]]


def _release(size: Size) -> None:
    gc.collect()
    if size.device == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raises TimeoutError inside, after this long."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _ratio(ours: Timing, theirs: Timing) -> dict[str, float]:
    """Theirs over ours, round by round: above 1 ours is faster."""
    rounds = sorted(b / a for a, b in zip(ours.seconds, theirs.seconds, strict=True))
    return {"median": theirs.median / ours.median, "min": rounds[0], "max": rounds[-1]}
