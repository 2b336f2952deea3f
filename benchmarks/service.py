"""The service against its own engine: `python -m benchmarks.service`.

The same checkpoint (random weights, mid-size), request and machine; engine and service runs alternate. Once with one
core for each side, which shows what the service costs; once with all cores for each side, where the service decodes
chunk k while it denoises k+1.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.conditions import head
from benchmarks.engine_process import EngineProcess, Run
from benchmarks.player import play
from benchmarks.service_process import ServiceProcess
from helios_engine.loading.tiny import TinyShape, write_tiny
from helios_engine.request import FRAMES_PER_CHUNK, GenerationRequest

SHAPE = TinyShape(layers=10, heads=6, head_dim=64, rope_dim=(24, 20, 20), ffn_dim=1536, text_dim=128, vae_dim=8)
REQUEST = GenerationRequest(
    prompt="a slow camera over the lake", num_frames=33 * 6, height=128, width=128, seed=1, pyramid_steps=(1, 1, 1)
)
ONE_CHUNK = replace(REQUEST, num_frames=33)
"""Nothing overlaps in a video of one chunk: what it costs more than in the engine is the service's own cost."""
REPEATS, SINGLE_REPEATS = 3, 5
BUFFER_CHUNKS = 2
RESULT = Path(__file__).parent / "results" / "service-cpu.json"
STAGES = ("text", "denoise", "decode", "encode")


def main() -> None:
    """Measures both settings, prints the tables and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="all cores only, one run a side: a look, no figure to quote"
    )
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    every_core = os.sched_getaffinity(0)
    settings = {"one core": {min(every_core)}, f"{len(every_core)} cores": every_core}
    repeats, singles = (1, 1) if args.quick else (REPEATS, SINGLE_REPEATS)
    if args.quick:
        del settings["one core"]
    with tempfile.TemporaryDirectory(prefix="helios-bench-") as folder:
        write_tiny(Path(folder) / "checkpoint", shape=SHAPE)
        results = {name: measure(cores, Path(folder), repeats, singles) for name, cores in settings.items()}
    report = {
        **head("service"),
        "model": {**vars_of(SHAPE), "weights": "random"},
        "request": vars_of(REQUEST),
        "repeats": repeats,
        "results": results,
    }
    args.output.parent.mkdir(exist_ok=True, parents=True)
    args.output.write_text(json.dumps(report, indent=2) + "\n")
    show(report)
    print(f"written to {args.output}")


def measure(cores: set[int], folder: Path, repeats: int, single_repeats: int) -> dict[str, Any]:
    """Alternating runs of both sides on the given cores."""
    checkpoint = str(folder / "checkpoint")
    engine, service = EngineProcess(checkpoint, cores), ServiceProcess(checkpoint, cores, folder)
    try:
        for side in (engine, service):
            side.run(REQUEST)  # warm-up
        pairs = [(engine.run(REQUEST), service.run(REQUEST)) for _ in range(repeats)]
        singles = [(engine.run(ONE_CHUNK), service.run(ONE_CHUNK)) for _ in range(single_repeats)]
    finally:
        engine.close()
        service.close()
    ratios = [rate(theirs) / rate(ours) for ours, theirs in pairs]
    engines, services = zip(*pairs, strict=True)
    return {
        "cores": len(cores),
        "chunk_rate_ratio": {"median": median(ratios), "min": min(ratios), "max": max(ratios)},
        "time_to_first_chunk_ratio": median(b.arrival_s[0] / a.arrival_s[0] for a, b in pairs),
        "time_to_only_chunk_ratio": median(b.arrival_s[0] / a.arrival_s[0] for a, b in singles),
        "engine": side_report(engines),
        "service": side_report(services),
        "overhead_ms": overhead(singles),
        "viewer": viewer(services),
    }


def rate(run: Run) -> float:
    """Steady-state chunks per second: without the first chunk."""
    return (len(run.arrival_s) - 1) / (run.arrival_s[-1] - run.arrival_s[0])


def side_report(runs: Sequence[Run]) -> dict[str, Any]:
    """Medians of one side."""
    return {
        "chunks_per_s": median(rate(run) for run in runs),
        "time_to_first_chunk_s": median(run.arrival_s[0] for run in runs),
        "stage_s": {stage: mean_stage(runs, stage) for stage in STAGES},
    }


def mean_stage(runs: Sequence[Run], stage: str) -> float:
    """Mean seconds of a stage over all chunks that have it."""
    return mean(stages[stage] for run in runs for stages in run.stage_s if stage in stages)


def overhead(singles: Sequence[tuple[Run, Run]]) -> dict[str, float]:
    """What a video's only chunk costs more than in the engine, in ms: by stage, between the stages, and in all."""

    def extra(cost: Callable[[Run], float]) -> float:
        return 1e3 * median(cost(theirs) - cost(ours) for ours, theirs in singles)

    by_stage = {stage: extra(partial(_stage, stage)) for stage in STAGES}
    return by_stage | {"between": extra(_between), "all": extra(_arrival)}


def _stage(name: str, run: Run) -> float:
    return run.stage_s[0].get(name, 0.0)


def _arrival(run: Run) -> float:
    return run.arrival_s[0]


def _between(run: Run) -> float:
    return run.arrival_s[0] - sum(run.stage_s[0].get(stage, 0.0) for stage in STAGES)


def viewer(runs: Sequence[Run]) -> dict[str, Any]:
    """What someone watching sees."""
    chunk_s = FRAMES_PER_CHUNK / REQUEST.fps
    gaps = [b - a for run in runs for a, b in zip(run.arrival_s, run.arrival_s[1:], strict=False)]
    playbacks = [play(run.arrival_s, chunk_s, BUFFER_CHUNKS) for run in runs]
    return {
        "time_to_first_chunk_s": median(run.arrival_s[0] for run in runs),
        "inter_arrival_p50_s": median(gaps),
        "inter_arrival_p99_s": quantiles(gaps, n=100, method="inclusive")[98],
        "real_time_factor": median(chunk_s * rate(run) for run in runs),
        "deadlines_met_share": mean(gap <= chunk_s for gap in gaps),
        "buffer_chunks": BUFFER_CHUNKS,
        "underruns_per_video": mean(playback.underruns for playback in playbacks),
        "stall_s_per_video": mean(playback.stall_s for playback in playbacks),
    }


def show(report: dict[str, Any]) -> None:
    """Prints the figures as a table."""
    console = Console()
    console.print(report["conditions"])
    table = Table("figure", *report["results"], title="service against engine, same machine, alternating runs")
    for label, path in ROWS:
        table.add_row(label, *(f"{dig(result, path):.3f}" for result in report["results"].values()))
    console.print(table)


def dig(tree: Any, path: str) -> float:
    """A value by its dotted path."""
    for name in path.split("."):
        tree = tree[name]
    return float(tree)


def vars_of(record: Any) -> dict[str, Any]:
    """A dataclass as JSON-ready values."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


ROWS = [
    ("chunk rate, service / engine (median)", "chunk_rate_ratio.median"),
    ("  lowest", "chunk_rate_ratio.min"),
    ("  highest", "chunk_rate_ratio.max"),
    ("time to first chunk of 6, service / engine", "time_to_first_chunk_ratio"),
    ("time to the only chunk of 1, service / engine", "time_to_only_chunk_ratio"),
    ("engine, chunks per second", "engine.chunks_per_s"),
    ("service, chunks per second", "service.chunks_per_s"),
    *((f"overhead of an only chunk, {name} (ms)", f"overhead_ms.{name}") for name in (*STAGES, "between", "all")),
    *(
        (f"viewer: {label}", f"viewer.{key}")
        for label, key in (
            ("time to first chunk (s)", "time_to_first_chunk_s"),
            ("inter-arrival p50 (s)", "inter_arrival_p50_s"),
            ("inter-arrival p99 (s)", "inter_arrival_p99_s"),
            ("real-time factor", "real_time_factor"),
            ("share of chunk deadlines met", "deadlines_met_share"),
            ("underruns per video, 2 chunks buffered", "underruns_per_video"),
            ("stall per video (s)", "stall_s_per_video"),
        )
    ),
]

if __name__ == "__main__":
    main()
