"""Everything that needs a GPU, most valuable first: `python -m benchmarks.gpu --folder build/gpu --minutes 9`.

Each part is a process with a time limit that writes into the folder row by row, so nothing is lost when it is ended. A
second call with the folder goes on where the first one stopped: complete parts are left out, and of the others what is
measured stays. What has failed is tried again by a call with --retry. parts.json says how each part ended. --dry prints
the plan and its minutes and runs nothing. Copy the other JSON files to benchmarks/results then, and run
`python -m benchmarks.performance_page`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.ablation_case import COMMON_ROWS, GPU_ROWS
from benchmarks.engine import ROW_NAMES
from benchmarks.engine_row import COMPILED
from benchmarks.kernel_cases import SMALL, cases
from benchmarks.parts import DONE, Outcomes
from benchmarks.products import row_count
from benchmarks.records import FAILED, is_measured, read, write
from benchmarks.sizes import SIZES
from benchmarks.vae_precision import DTYPES, SEARCHED

SIZE = "gpu-full"
STATUS = "parts.json"
LEAST_S = 30.0
"""Starting a part with less time left would measure nothing."""
LEAST_TO_COMPILE_S = 300.0
"""What diffusers compiles takes minutes before its first figure."""
SPARE_S = 15.0
"""Seconds of the time that are kept for ending the last part."""

Report = dict[str, Any]
CompleteFn = Callable[[Report, bool], bool]
"""Whether a result has all that its part can measure; with True, what has failed counts as missing."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """command: what follows `python`; FOLDER and LIMIT stand for the folder and the seconds. result: its file.

    limit_s: at most. least_s: with less time left the part is not started.
    """

    name: str
    command: tuple[str, ...]
    limit_s: float
    least_s: float = LEAST_S
    result: str = ""
    complete: CompleteFn = field(default=lambda report, retry: False)

    def arguments(self, folder: Path, limit_s: float) -> list[str]:
        """The command line for that folder and time."""
        places = {"FOLDER": str(folder), "LIMIT": str(int(limit_s))}
        return [places.get(word, word.replace("FOLDER", str(folder))) for word in self.command]


def engine(name: str, size: str, limit_s: float, *, compiled: bool) -> Part:
    """benchmarks.engine, all rows in one process, with or without the compiled column."""

    def complete(report: Report, retry: bool) -> bool:
        found = [report["rows"][name] for name in ROW_NAMES]
        columns = [row[COMPILED] if compiled and is_measured(row) else row for row in found]
        return all(ended(column, retry=retry) for column in columns)

    ways = ("--budget-s", "LIMIT") if compiled else ("--no-compile", "--runs", "3")
    result = f"engine-{size}.json"
    return Part(
        name=name,
        command=("-m", "benchmarks.engine", "--size", size, "--missing", *ways, "--output", f"FOLDER/{result}"),
        limit_s=limit_s,
        least_s=LEAST_TO_COMPILE_S if compiled else LEAST_S,
        result=result,
        complete=complete,
    )


def ended(value: Any, *, retry: bool) -> bool:
    """Whether a row or column is measured, or has failed and is not to be tried again."""
    return is_measured(value) or (not retry and str(value).startswith(FAILED))


def other(module: str, size: str, limit_s: float, complete: CompleteFn, *arguments: str) -> Part:
    """Another benchmark of that size."""
    result = f"{module.replace('_', '-')}-{size}.json"
    command = ("-m", f"benchmarks.{module}", "--size", size, *arguments, "--output", f"FOLDER/{result}")
    return Part(name=module, command=command, limit_s=limit_s, result=result, complete=complete)


def kernels(size: str, limit_s: float) -> Part:
    """benchmarks.kernels, whose sizes are the device's."""
    result = f"kernels-{size}.json"
    command = ("-m", "benchmarks.kernels", "--missing", "--output", f"FOLDER/{result}")
    return Part(name="kernels", command=command, limit_s=limit_s, result=result, complete=timed)


def tests(name: str, limit_s: float, *arguments: str) -> Part:
    """Tests, on several cores where pytest-xdist is; complete when they have passed."""
    spread = ("-n", "6") if find_spec("xdist") else ()
    return Part(
        name=name, command=("-m", "pytest", "-q", "-p", "no:cacheprovider", *spread, *arguments), limit_s=limit_s
    )


def ablated(report: Report, retry: bool) -> bool:
    """Whether benchmarks.ablation has all its rows."""
    found = {one["name"] for one in report["results"] if ended(one["worth"], retry=retry)}
    return found >= (COMMON_ROWS | GPU_ROWS).keys()


def timed(report: Report, retry: bool) -> bool:
    """Whether benchmarks.kernels has all its rows."""
    return rows_ended(report, retry) == sum(1 for _ in cases(SMALL, torch.device("cpu")))


def multiplied(report: Report, retry: bool) -> bool:
    """Whether benchmarks.products has all its rows."""
    return rows_ended(report, retry) == row_count()


def rows_ended(report: Report, retry: bool) -> int:
    """How many rows are measured, or have failed and are not to be tried again."""
    return sum(not retry or "failed" not in row for row in report["results"])


def decoded(report: Report, _: bool) -> bool:
    """Whether benchmarks.vae_precision is through: its last figures are those of algorithms found by trying."""
    timed_ways: Report = report["results"]["seconds"]
    return timed_ways.keys() >= {f"{name}{SEARCHED}" for name in DTYPES}


def parts(size: str = SIZE) -> tuple[Part, ...]:
    """All of them, in order of value: what comes last is dropped when the time is over."""
    return (
        other("machine", size, 40, lambda report, _: bool(report["results"])),
        engine("engine", size, 330, compiled=False),
        # the kernels themselves: the interpreter's run of the same tests needs no GPU
        tests("kernels' correctness", 90, "tests/kernels", "--ignore=tests/kernels/test_interpreted.py"),
        other("vae_precision", size, 90, decoded),
        other("fp8", size, 120, lambda report, _: is_measured(report["results"]["seconds"]["fp8"])),
        other("chunk_profile", size, 60, lambda report, _: bool(report["results"])),
        other("products", size, 60, multiplied, "--missing"),
        other("bf16", size, 60, lambda report, _: len(report["results"]) == 3),
        other("ablation", size, 150, ablated, "--missing"),
        engine("engine, compiled", size, 480, compiled=True),
        kernels(size, 240),
        tests("engine's tests", 240, "tests/engine"),
    )


def main() -> None:
    """Runs what is left to do, while there is time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("build/gpu"), help="where results go, and are gone on with")
    parser.add_argument("--minutes", type=float, default=9.8, help="for all parts together")
    parser.add_argument("--only", nargs="+", default=[], help="parts whose names contain one of these")
    parser.add_argument("--retry", action="store_true", help="parts that failed before are tried again")
    parser.add_argument("--dry", action="store_true", help="print the plan and run nothing")
    parser.add_argument("--size", choices=SIZES, default=SIZE, help="a small one rehearses the plan without a GPU")
    args = parser.parse_args()
    chosen = [part for part in parts(args.size) if any(name in part.name for name in args.only or [""])]
    if args.dry:
        show_plan(chosen, args.folder, 60 * args.minutes - SPARE_S)
        return
    until = time.monotonic() + 60 * args.minutes - SPARE_S
    folder: Path = args.folder
    status: dict[str, str] = read(folder / STATUS)
    outcomes = Outcomes()
    for part in chosen:
        if (reason := left_out(part, folder, status, retry=args.retry)) is not None:
            outcomes.note(part.name, reason)
            continue
        limit_s = min(part.limit_s, until - time.monotonic())
        if limit_s < part.least_s:
            outcomes.note(part.name, "no time left")
            continue
        outcomes.run(part.name, part.arguments(folder, limit_s), limit_s)
        status[part.name] = outcomes.outcomes[part.name]
        write(folder / STATUS, status)
    outcomes.show()
    sys.exit(any(outcome not in (DONE, "complete") for outcome in outcomes.outcomes.values()))


def left_out(part: Part, folder: Path, status: dict[str, str], *, retry: bool) -> str | None:
    """Why a part need not run; None: it has to."""
    before = status.get(part.name, "")
    try:
        if part.complete(read(folder / part.result), retry) if part.result else before == DONE:
            return "complete"
    except (KeyError, json.JSONDecodeError):
        pass  # there is no result yet, or none of it
    return f"before: {before}" if before.startswith("failed") and not retry else None


def show_plan(chosen: Sequence[Part], folder: Path, budget_s: float) -> None:
    """What would run and when, if every part took all of its time; parts often end sooner, and later ones move up."""
    table = Table("part", "starts at, s", "at most, s", "", "command", title=f"{budget_s:.0f} s for all parts")
    start_s = 0.0
    for part in chosen:
        left_s = budget_s - start_s
        limit_s = min(part.limit_s, left_s)
        starts = limit_s >= part.least_s
        note = "" if starts else f"only if {part.least_s:.0f} s are left"
        command = " ".join(["python", *part.arguments(folder, max(limit_s, part.least_s))])
        table.add_row(part.name, f"{start_s:.0f}" if starts else "-", f"{part.limit_s:.0f}", note, command)
        start_s += limit_s if starts else 0.0
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
