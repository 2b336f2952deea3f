"""Our engine against diffusers, part by part: `python -m benchmarks.engine --against diffusers --size cpu`.

Both run in this process from the same random weights and in turn. Ours runs as a replica does: on a GPU on the fused
kernels, its attention kernels chosen by timing, and as CUDA graphs where that is faster. diffusers runs eagerly and, in
a third column, with its text encoder, transformer and VAE under torch.compile. Each row checks first that both compute
the same. Rows of a size whose device is not here are recorded as not measured; rows that are not asked for stay as the
JSON has them. Every row says by which command and at which commit it was measured. The last column is the work that
counts.py counts, by our time, by the machine's best matrix product; it can pass 100%, as ours computes less than is
counted (prompt padding, doubling).
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.attention_backends import fastest_backend, with_backend
from benchmarks.conditions import conditions
from benchmarks.counts import parts
from benchmarks.peers import Peers, build, compiled, describe
from benchmarks.rows import PROMPT, Row, request_for, rows
from benchmarks.sizes import SIZES, Size
from benchmarks.timing import Timing, clock_name, matmul_peak, measure
from helios_engine.attention_backends import CHOOSER
from helios_engine.compiling import CompileMode
from helios_engine.denoiser import Denoiser
from helios_engine.state import DenoiseState

RESULTS = Path(__file__).parent / "results"
NOT_MEASURED = "not measured"
RESERVE_S = 180.0
"""Of the budget: for what is left to measure when compiling has to stop."""
MODES: tuple[CompileMode, ...] = get_args(CompileMode)
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.05}
ROW_NAMES = (
    "text encode",
    *(f"DiT step, stage {stage}" for stage in range(3)),
    *(f"DiT chunk [{steps},{steps},{steps}]" for steps in (1, 2)),
    *(f"VAE {what}, a chunk" for what in ("decode", "encode")),
    "end to end, a chunk [2,2,2]",
)


class DifferentResults(RuntimeError):
    """The two do not compute the same, so that their times cannot be compared."""


def main() -> None:
    """Measures, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__.splitlines()[0])
    parser.add_argument("--against", choices=["diffusers"], default="diffusers")
    parser.add_argument("--size", choices=SIZES, default="cpu")
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each contestant")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; with one, CPU time is measured")
    parser.add_argument("--modes", choices=MODES, nargs="+", help="ways to run our DiT; the fastest is taken")
    parser.add_argument(
        "--budget-s", type=float, default=540.0, help="nothing of diffusers is compiled after this long"
    )
    parser.add_argument("--no-compile", action="store_true", help="leave the torch.compile column out")
    parser.add_argument("--rows", nargs="+", default=[], help="only rows whose names contain one of these")
    parser.add_argument("--output", type=Path, help="JSON (default: benchmarks/results/engine-SIZE.json)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    size = SIZES[args.size]
    output: Path = args.output or RESULTS / f"engine-{size.name}.json"
    report: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.engine", *sys.argv[1:]]),
        "conditions": {**conditions(), **{name: version(name) for name in ("diffusers", "transformers")}},
        "size": describe(size),
    }
    report["conditions"] |= {"threads": args.threads, "clock": clock_name(size.device), "gpu": gpu()}
    report = save(output, report, {}, keep=bool(args.rows))
    if size.device == "cpu" or torch.cuda.is_available():
        modes = args.modes or (["off", "graphs"] if size.device == "cuda" else ["off"])
        budget_s = args.budget_s or (540.0 if size.device == "cuda" else 86_400.0)
        compile_until = time.monotonic() + (0.0 if args.no_compile else budget_s - RESERVE_S)
        for facts, measured in run(size, args.runs, modes=modes, compile_until=compile_until, only=args.rows):
            origin = {"commit": report["conditions"]["commit"], "command": report["command"]}
            dated = {name: row if isinstance(row, str) else row | origin for name, row in measured.items()}
            report = save(output, report | facts, dated, keep=True)
    show(report)
    print(f"written to {output}")


def save(output: Path, report: dict[str, Any], measured: dict[str, Any], *, keep: bool) -> dict[str, Any]:
    """Writes the report with the rows measured so far; what is in the file already stays, if it is to be kept."""
    written = json.loads(output.read_text())["rows"] if keep and output.exists() else {}
    report["rows"] = dict.fromkeys(ROW_NAMES, NOT_MEASURED) | written | measured
    output.parent.mkdir(exist_ok=True)
    output.write_text(json.dumps(report, indent=2) + "\n")
    return report


def run(
    size: Size, runs: int, *, modes: list[CompileMode], compile_until: float, only: list[str]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Row by row: facts about the machine, and what was measured."""
    peak = matmul_peak(size.device, size.dtype)
    peers = build(size)
    backend = fastest_backend(size)
    peers, mode_facts = with_fastest_mode(peers, size, modes)
    facts = {"matmul_peak_flops_per_s": peak, "diffusers_attention": backend, "our_modes": mode_facts}
    with with_backend(backend):
        other = compiled(peers.diffusers, regional=size.device == "cuda")
        flops = {name: sum(p.flops for p in products) for name, products in parts(size).items()}
        for row in rows(size, peers):
            if only and not any(part in row.name for part in only):
                continue
            try:
                record = measure_row(row, peers, other, size, runs, compile_until)
            except DifferentResults as difference:
                print(difference, file=sys.stderr, flush=True)
                yield facts, {row.name: f"failed: {difference}"}
                continue
            record["share_of_peak"] = flops[row.cost] / record["ours"]["median"] / peak if row.cost else None
            print(f"{row.name}: {summary(record)}", file=sys.stderr, flush=True)
            ours = {"our_attention": {str(shape): name for shape, name in CHOOSER.choices.items()}}
            yield facts | ours, {row.name: record}


def with_fastest_mode(peers: Peers, size: Size, modes: list[CompileMode]) -> tuple[Peers, dict[str, Any]]:
    """Ours in the mode that makes a chunk [1,1,1] fastest, and the seconds of each, or what went wrong."""
    pipeline = peers.ours
    found: dict[CompileMode, float | str] = {}
    denoisers: dict[CompileMode, Denoiser] = {}
    state = DenoiseState.initial(request_for(size, 1))
    embeds = pipeline.text_encoder.encode([PROMPT])
    for mode in sorted(modes, key=MODES.index):  # compiled blocks stay compiled, so they come last
        try:
            denoiser = Denoiser(pipeline.denoiser.transformer, size.scheduler, compile=mode)
            if len(modes) > 1:
                timing = measure({"": lambda d=denoiser: d.denoise_chunk(state, embeds)}, device=size.device, runs=3)  # type: ignore[misc]
                found[mode] = timing[""].median
            denoisers[mode] = denoiser
        except Exception as failure:  # whatever the compiler or the driver raises: the report says so
            found[mode] = f"failed: {' '.join(str(failure).split())[:160]}"
    best = min(denoisers, key=lambda mode: float(found.get(mode, 0.0)))
    if "regional" in denoisers and best != "regional":
        undo_compile(pipeline.denoiser.transformer)
    pipeline.denoiser = denoisers[best]
    return peers, {"taken": best, "chunk [1,1,1], s": found}


def undo_compile(transformer: Any) -> None:
    """Has the blocks run as they are again."""
    transformer.compiled = False
    for block in transformer.blocks:
        block._compiled_call_impl = None


def measure_row(row: Row, peers: Peers, other: Any, size: Size, runs: int, compile_until: float) -> dict[str, Any]:
    """Timings of one row, after a check that both compute the same."""
    with torch.inference_mode():
        ours, theirs = (x.double().cpu().flatten() for x in (row.ours(), row.theirs(peers.diffusers)))
    shared = min(len(ours), len(theirs))  # diffusers drops the last frames of a video
    error = float((ours[:shared] - theirs[:shared]).norm() / theirs[:shared].norm())
    if "end to end" not in row.name and not error < TOLERANCES[size.dtype]:
        raise DifferentResults(f"{row.name}: relative error {error:.1e}: the two do not compute the same")
    contestants: dict[str, Callable[[], object]] = {
        "ours": row.ours,
        "diffusers eager": lambda: row.theirs(peers.diffusers),
    }
    record: dict[str, Any] = {"relative_error": error}
    left = int(compile_until - time.monotonic())
    if left <= 0:
        record["diffusers compiled"] = NOT_MEASURED
    else:
        try:
            before = time.perf_counter()
            with torch.inference_mode(), time_limit(left):
                row.theirs(other)
            record["compile_s"] = time.perf_counter() - before
            contestants["diffusers compiled"] = lambda: row.theirs(other)
        except Exception as failure:  # whatever the compiler raises: the row says so
            record["diffusers compiled"] = f"failed: {' '.join(str(failure).split())[:160]}"
    timings = measure(contestants, device=size.device, runs=runs, warmups=int(size.device == "cuda"))
    record |= {name: timing.record() for name, timing in timings.items()}
    record["ratio"] = {name: _ratio(timings["ours"], timing) for name, timing in timings.items() if name != "ours"}
    return record


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


def gpu() -> str | None:
    """The GPU's name, where there is one."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def summary(row: dict[str, Any]) -> str:
    """One row in a line."""
    return ", ".join(f"{name} {row[name]['median'] * 1e3:.4g} ms" for name in ("ours", *row["ratio"]))


def show(report: dict[str, Any]) -> None:
    """The table."""
    clock = report["conditions"]["clock"]
    table = Table(title=f"Engine, size {report['size']['name']}: ms, {clock}, median (min to max)")
    for column in ("", "ours", "diffusers eager", "ratio", "diffusers compiled", "ratio", "useful, of matmul peak"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in report["rows"].items():
        if isinstance(row, str):
            table.add_row(name, row, *["-"] * 5)
            continue
        cells = [name, spread(row["ours"])]
        for other in ("diffusers eager", "diffusers compiled"):
            has = isinstance(row.get(other), dict)
            cells += [spread(row[other]) if has else str(row.get(other, "-"))]
            cells += [f"{row['ratio'][other]['median']:.2f}" if has else "-"]
        share = row["share_of_peak"]
        table.add_row(*cells, "-" if share is None else f"{share:.0%}")
    Console(width=150).print(table)


def spread(timing: dict[str, Any]) -> str:
    """Median and extremes in milliseconds."""
    return f"{timing['median'] * 1e3:.4g} ({timing['min'] * 1e3:.4g} to {timing['max'] * 1e3:.4g})"


if __name__ == "__main__":
    main()
