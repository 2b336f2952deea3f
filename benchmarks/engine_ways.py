"""How each peer runs best on this machine: our DiT's mode, diffusers' attention kernel and projections, by timing."""

import gc
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.attention_backends import fastest_backend, with_backend
from benchmarks.peers import Peers, use_joined
from benchmarks.records import failed
from benchmarks.rows import PROMPT, Row, request_for
from benchmarks.sizes import Size
from benchmarks.timing import measure
from helios_engine.ops.attention_backends import preferred
from helios_engine.options import CompileMode
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.state import DenoiseState

RUNS = 3
MARGIN = 0.02
"""A way replaces those before it only if it takes less time by more than this share: noise decides nothing."""
SEPARATE, JOINED = "separate", "joined"


def with_fastest_mode(peers: Peers, size: Size, modes: list[CompileMode], order: list[CompileMode]) -> dict[str, Any]:
    """Has ours run in the mode that makes a chunk [1,1,1] fastest; the seconds of each, or what went wrong.

    order: compiled blocks stay compiled, so they come last. Where no mode works, the one that it was built with stays.
    """
    pipeline = peers.ours
    denoisers: dict[str, Denoiser] = {}
    state = DenoiseState.initial(request_for(size, 1))
    embeds = pipeline.text_encoder.encode([PROMPT])

    def chunk(mode: CompileMode) -> Callable[[], object]:
        denoisers[mode] = made = Denoiser(pipeline.denoiser.transformer, size.scheduler, compile=mode)
        return lambda: made.denoise_chunk(state, embeds)

    found = _seconds({mode: lambda m=mode: chunk(m) for mode in sorted(modes, key=order.index)}, size)  # type: ignore[misc]
    best = _fastest(found)
    if "regional" in denoisers and best != "regional":
        undo_compile(pipeline.denoiser.transformer)
    if best is not None:
        pipeline.denoiser = denoisers[best]
    return {"taken": best or "off", "chunk [1,1,1], s": found}


def undo_compile(transformer: Any) -> None:
    """Has the blocks run as they are again."""
    transformer.compiled = False
    for block in transformer.blocks:
        block._compiled_call_impl = None


def their_backend(size: Size) -> str:
    """The attention kernel that diffusers runs with."""
    return fastest_backend(size)


def with_fastest_projections(peers: Peers, size: Size, backend: str, finest: Row) -> dict[str, Any]:
    """Has diffusers run its projections joined (`fuse_qkv_projections`) or not, whichever makes that row faster.

    On a CPU they stay separate: joining them is worth nothing there (benchmarks/ablation.py measures it for ours).
    """
    if size.device == "cpu":
        return {"taken": SEPARATE}
    transformer = peers.diffusers.transformer

    def step(way: str) -> Callable[[], object]:
        use_joined(transformer, joined=way == JOINED)
        return lambda: finest.theirs(peers.diffusers)

    with with_backend(backend):
        found = _seconds({way: lambda w=way: step(w) for way in (SEPARATE, JOINED)}, size)  # type: ignore[misc]
    best = _fastest(found) or SEPARATE
    use_joined(transformer, joined=best == JOINED)
    return {"taken": best, f"{finest.name}, s": found}


def _seconds(prepare: dict[Any, Callable[[], Callable[[], object]]], size: Size) -> dict[str, float | str]:
    """Median of each work, prepared and timed one after the other; or what went wrong."""
    found: dict[str, float | str] = {}
    for name, make in prepare.items():
        try:
            found[name] = measure({"": make()}, device=size.device, runs=RUNS)[""].median
        except Exception as failure:  # whatever the compiler or the driver raises: the report says so
            found[name] = failed(failure)
        gc.collect()
        if size.device == "cuda":
            torch.cuda.empty_cache()
    return found


def _fastest(found: dict[str, float | str]) -> str | None:
    seconds = {name: value for name, value in found.items() if isinstance(value, float)}
    return preferred(seconds, MARGIN) if seconds else None
