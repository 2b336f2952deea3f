"""Our engine against diffusers, part by part: `python -m benchmarks.engine --against diffusers --size cpu`.

Both run in this process from the same random weights and in turn. Ours runs as a replica does: on a GPU on the fused
kernels, its attention kernels chosen by timing, and as CUDA graphs where that is faster. diffusers runs eagerly, with
the attention kernel and the projections (joined or not) that are fastest there and, in a third column, with its text
encoder, transformer and VAE under torch.compile. Each row says how far the results of the two are apart. Rows of a
size whose device is not here are recorded as not measured. The file is written after each row; what it holds stays,
and a measurement is replaced by another one only (--fresh: begin anew). Every row says by which command, at which
commit and when it was measured. The last column is the least time that the work of counts.py can take by this
machine's best matrix product and copy, over our time; it can pass 100%, as ours computes less than is counted (prompt
padding, doubling).
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.attention_backends import with_backend
from benchmarks.ceilings import ceilings, least_s
from benchmarks.conditions import head
from benchmarks.engine_row import COMPILED, EAGER, OURS, CompileBudget, measure_row
from benchmarks.engine_ways import their_backend, with_fastest_mode, with_fastest_projections
from benchmarks.gpu_state import gpu_state
from benchmarks.peers import build, compiled, describe
from benchmarks.records import FAILED, NOT_MEASURED, RESULTS, failed, is_measured, merged, read, write
from benchmarks.rows import PROMPT, rows
from benchmarks.sizes import SIZES, Size
from benchmarks.timing import clock_name
from helios_engine.ops.attention_backends import CHOOSER
from helios_engine.options import CompileMode

RESERVE_S = 180.0
"""What compiling leaves of a GPU's budget, for the measurements that follow."""
BUDGET_S = {"cpu": 86_400.0, "cuda": 540.0}
MODES: list[CompileMode] = list(get_args(CompileMode))
ROW_NAMES = (
    "text encode",
    *(f"DiT step, stage {stage}" for stage in range(3)),
    *(f"DiT chunk [{steps},{steps},{steps}]" for steps in (1, 2)),
    *(f"VAE {what}, a chunk" for what in ("decode", "encode")),
    *(f"end to end, a chunk [{steps},{steps},{steps}]" for steps in (1, 2)),
)
FINEST = "DiT step, stage 2"
FIRST = (FINEST, "end to end, a chunk [1,1,1]", "VAE decode, a chunk")
"""Measured before the others, should the time not last for all."""


def main() -> None:
    """Measures, prints the table and writes the JSON."""
    args = arguments()
    torch.set_num_threads(args.threads)
    size = SIZES[args.size]
    output: Path = args.output or RESULTS / f"engine-{size.name}.json"
    before: dict[str, Any] = {} if args.fresh else read(output)
    report: dict[str, Any] = {
        **head("engine", {"threads": args.threads, "clock": clock_name(size.device)}),
        "size": describe(size),
    }
    known: dict[str, Any] = dict.fromkeys(ROW_NAMES, NOT_MEASURED) | before.get("rows", {})
    wanted = [
        name
        for name in ROW_NAMES
        if any(part in name for part in args.rows or [""])
        and not (args.missing and complete(known[name], with_compiled=not args.no_compile))
    ]
    report = before | report | {"rows": known}
    write(output, report)
    if wanted and (size.device == "cpu" or torch.cuda.is_available()):
        budget_s = BUDGET_S[size.device] if args.budget_s is None else args.budget_s
        reserve_s = RESERVE_S if size.device == "cuda" else 0.0
        budget = None if args.no_compile else CompileBudget(until=time.monotonic() + budget_s - reserve_s)
        modes = args.modes or (["off", "graphs"] if size.device == "cuda" else ["off"])
        origin = {name: report["conditions"][name] for name in ("commit", "date", "torch", "gpu")}
        for facts, measured in run(size, args.runs, modes=modes, budget=budget, wanted=wanted):
            dated = {
                name: row | origin | {"command": report["command"], "gpu_state": gpu_state()}
                if isinstance(row, dict)
                else row
                for name, row in measured.items()
            }
            report |= facts | {"rows": merged(report["rows"], dated, (EAGER, COMPILED))}
            write(output, report)
    show(report)
    print(f"written to {output}")


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__.splitlines()[0])
    parser.add_argument("--against", choices=["diffusers"], default="diffusers")
    parser.add_argument("--size", choices=SIZES, default="cpu")
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each contestant")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; with one, CPU time is measured")
    parser.add_argument("--modes", choices=MODES, nargs="+", help="ways to run our DiT; the fastest is taken")
    parser.add_argument(
        "--budget-s",
        type=float,
        help=f"seconds for all; on a GPU nothing is compiled in the last {RESERVE_S:.0f} "
        f"(default: {BUDGET_S['cuda']:.0f})",
    )
    parser.add_argument("--no-compile", action="store_true", help="leave the torch.compile column out")
    parser.add_argument("--rows", nargs="+", default=[], help="only rows whose names contain one of these")
    parser.add_argument("--missing", action="store_true", help="only rows that the file has no measurement of")
    parser.add_argument("--fresh", action="store_true", help="forget what the file holds")
    parser.add_argument("--output", type=Path, help="JSON (default: benchmarks/results/engine-SIZE.json)")
    return parser.parse_args()


def complete(row: Any, *, with_compiled: bool) -> bool:
    """Whether nothing is left to measure of a row. A compiler that failed would fail again."""
    if not is_measured(row):
        return False
    column = row.get(COMPILED, NOT_MEASURED)
    return not with_compiled or is_measured(column) or column.startswith(FAILED)


def run(
    size: Size, runs: int, *, modes: list[CompileMode], budget: CompileBudget | None, wanted: list[str]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Row by row: facts about the machine, and what was measured."""
    machine = ceilings(size)
    peers = build(size)
    facts: dict[str, Any] = machine.record()
    backend = "torch's choice"
    if any("DiT" in name or "end to end" in name for name in wanted):
        backend = their_backend(size)
        facts["our_modes"] = with_fastest_mode(peers, size, modes, MODES)
        facts["diffusers_attention"] = backend
        (finest,) = (row for row in rows(size, peers) if row.name == FINEST)
        facts["diffusers_projections"] = with_fastest_projections(peers, size, backend, finest)
        del finest
    prompt_tokens = len(peers.ours.text_encoder.tokenizer(PROMPT).input_ids)
    other = compiled(peers.diffusers, regional=size.device == "cuda")
    with with_backend(backend):
        for row in sorted(rows(size, peers), key=lambda row: row.name not in FIRST):
            if row.name not in wanted:
                continue
            try:
                record = measure_row(row, peers, other, size, runs, budget)
            except Exception as failure:  # out of memory, say: the row says so and the others are measured
                print(f"{row.name}: {failed(failure)}", file=sys.stderr, flush=True)
                yield facts, {row.name: failed(failure)}
                continue
            finally:
                if size.device == "cuda":
                    torch.cuda.empty_cache()
            record["share_of_roofline"] = least_s(size, row.costs, machine, prompt_tokens) / record[OURS]["median"]
            print(f"{row.name}: {summary(record)}", file=sys.stderr, flush=True)
            choices = {str(shape): name for shape, name in CHOOSER.choices.items()}
            yield facts | ({"our_attention": choices} if choices else {}), {row.name: record}


def summary(row: dict[str, Any]) -> str:
    """One row in a line."""
    return ", ".join(f"{name} {row[name]['median'] * 1e3:.4g} ms" for name in (OURS, *row["ratio"]))


def show(report: dict[str, Any]) -> None:
    """The table."""
    clock = report["conditions"]["clock"]
    table = Table(title=f"Engine, size {report['size']['name']}: ms, {clock}, median (min to max)")
    for column in ("", OURS, EAGER, "ratio", COMPILED, "ratio", "of the roofline"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in report["rows"].items():
        if isinstance(row, str):
            table.add_row(name, row, *["-"] * 5)
            continue
        cells = [name + (" (DIFFERS)" if row.get("differs") else ""), spread(row[OURS])]
        for other in (EAGER, COMPILED):
            has = is_measured(row.get(other))
            cells += [spread(row[other]) if has else str(row.get(other, "-"))]
            cells += [f"{row['ratio'][other]['median']:.2f}" if has else "-"]
        share = share_of_roofline(row)
        table.add_row(*cells, "-" if share is None else f"{share:.0%}")
    Console(width=150).print(table)


def share_of_roofline(row: dict[str, Any]) -> float | None:
    """The share of the roofline that a measured row reaches; None where a file does not say it.

    Older files counted the DiT's steps and the VAE only.
    """
    share: float | None = row.get("share_of_roofline", row.get("share_of_peak"))
    return share


def spread(timing: dict[str, Any]) -> str:
    """Median and extremes in milliseconds."""
    return f"{timing['median'] * 1e3:.4g} ({timing['min'] * 1e3:.4g} to {timing['max'] * 1e3:.4g})"


if __name__ == "__main__":
    main()
