"""Everything that needs a GPU, most valuable first: `python -m benchmarks.gpu --folder build/gpu --minutes 9`.

Each part is a process with a time limit that writes into the folder row by row, so nothing is lost when it is ended. A
second call with the folder goes on where the first one stopped: complete parts are left out, and of the others what is
measured stays. What has failed is tried again by a call with --retry. parts.json says how each part ended. Copy the
other JSON files to benchmarks/results then, and run `python -m benchmarks.performance_page`.
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

from benchmarks.ablation_case import COMMON_ROWS, GPU_ROWS
from benchmarks.kernel_cases import SMALL, cases
from benchmarks.parts import DONE, Outcomes
from benchmarks.records import FAILED, is_measured, read, write

SIZE = "gpu-full"
STATUS = "parts.json"
LEAST_S = 60.0
"""Starting a part with less time left would measure nothing."""
SPARE_S = 15.0
"""Of the minutes: for ending the last part."""
DIT, REST = ("DiT",), ("VAE", "text encode", "end to end")
DIT_ROWS, REST_ROWS = 5, 5

Report = dict[str, Any]
CompleteFn = Callable[[Report, bool], bool]
"""Whether a result has all that its part can measure; with True, what has failed counts as missing."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """command: what follows `python`; FOLDER and LIMIT stand for the folder and the seconds. result: its file."""

    name: str
    command: tuple[str, ...]
    limit_s: float
    result: str = ""
    complete: CompleteFn = field(default=lambda report, retry: False)

    def arguments(self, folder: Path, limit_s: float) -> list[str]:
        """The command line for that folder and time."""
        places = {"FOLDER": str(folder), "LIMIT": str(int(limit_s))}
        return [places.get(word, word.replace("FOLDER", str(folder))) for word in self.command]


def engine(name: str, rows: Sequence[str], count: int, limit_s: float, *, compiled: bool) -> Part:
    """Some rows of benchmarks.engine, with or without the compiled column."""

    def complete(report: Report, retry: bool) -> bool:
        found = [row for name, row in report["rows"].items() if any(part in name for part in rows)]
        columns = [row["diffusers compiled"] if compiled and is_measured(row) else row for row in found]
        return sum(ended(column, retry=retry) for column in columns) == count

    ways = ("--budget-s", "LIMIT") if compiled else ("--no-compile",)
    command = ("-m", "benchmarks.engine", "--size", SIZE, "--missing", *ways, "--rows", *rows)
    result = f"engine-{SIZE}.json"
    return Part(
        name=name, command=(*command, "--output", f"FOLDER/{result}"), limit_s=limit_s, result=result, complete=complete
    )


def ended(value: Any, *, retry: bool) -> bool:
    """Whether a row or column is measured, or has failed and is not to be tried again."""
    return is_measured(value) or (not retry and str(value).startswith(FAILED))


def other(module: str, arguments: Sequence[str], limit_s: float, complete: CompleteFn) -> Part:
    """Another benchmark."""
    result = f"{module.replace('_', '-')}-{SIZE}.json"
    command = ("-m", f"benchmarks.{module}", *arguments, "--output", f"FOLDER/{result}")
    return Part(name=module, command=command, limit_s=limit_s, result=result, complete=complete)


def tests(name: str, limit_s: float, *arguments: str) -> Part:
    """Tests, on several cores where pytest-xdist is; complete when they have passed."""
    spread = ("-n", "8") if find_spec("xdist") else ()
    return Part(
        name=name, command=("-m", "pytest", "-q", "-p", "no:cacheprovider", *spread, *arguments), limit_s=limit_s
    )


def ablated(report: Report, retry: bool) -> bool:
    """Of benchmarks.ablation."""
    found = {one["name"] for one in report["results"] if ended(one["worth"], retry=retry)}
    return found >= (COMMON_ROWS | GPU_ROWS).keys()


def timed(report: Report, retry: bool) -> bool:
    """Of benchmarks.kernels."""
    count = sum(1 for _ in cases(SMALL, torch.device("cpu")))
    return sum(not retry or "failed" not in one for one in report["results"]) == count


def parts() -> tuple[Part, ...]:
    """All of them, in order of value."""
    sized = ("--size", SIZE)
    return (
        # the kernels themselves: the interpreter's run of the same tests needs no GPU
        tests("kernels' correctness", 150, "tests/kernels", "--ignore=tests/kernels/test_interpreted.py"),
        engine("DiT", DIT, DIT_ROWS, 240, compiled=False),
        other("bf16", sized, 90, lambda report, _: len(report["results"]) == 3),
        engine("DiT, compiled", DIT, DIT_ROWS, 420, compiled=True),
        engine("VAE, text, end to end", REST, REST_ROWS, 240, compiled=False),
        engine("VAE, text, end to end, compiled", REST, REST_ROWS, 480, compiled=True),
        other("ablation", (*sized, "--missing"), 300, ablated),
        other("vae_precision", sized, 90, lambda report, _: bool(report["results"]["seconds"])),
        other("fp8", sized, 150, lambda report, _: is_measured(report["results"]["seconds"]["fp8"])),
        other("kernels", ("--missing",), 300, timed),
        tests("engine's tests", 240, "tests/engine"),
    )


def main() -> None:
    """Runs what is left to do, while there is time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("build/gpu"), help="where results go, and are gone on with")
    parser.add_argument("--minutes", type=float, default=60.0, help="for all parts together")
    parser.add_argument("--only", nargs="+", default=[], help="parts whose names contain one of these")
    parser.add_argument("--retry", action="store_true", help="parts that failed before are tried again")
    args = parser.parse_args()
    until = time.monotonic() + 60 * args.minutes - SPARE_S
    folder: Path = args.folder
    status: dict[str, str] = read(folder / STATUS)
    outcomes = Outcomes()
    for part in parts():
        if not any(name in part.name for name in args.only or [""]):
            continue
        if (reason := left_out(part, folder, status, retry=args.retry)) is not None:
            outcomes.note(part.name, reason)
            continue
        limit_s = min(part.limit_s, until - time.monotonic())
        if limit_s < LEAST_S:
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


if __name__ == "__main__":
    main()
