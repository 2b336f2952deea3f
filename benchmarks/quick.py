"""A look at everything that this machine can measure in ten minutes: `python -m benchmarks.quick` (`make bench`).

Each part has a time budget and is ended when it is over. Figures go to a folder of their own: those in
benchmarks/results come from the parts' own commands, with their own numbers of runs.
"""

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

TOTAL_S = 600


@dataclass(frozen=True, kw_only=True)
class Part:
    """A benchmark's module and arguments. output: how it is told where to write; empty: it only prints."""

    module: str
    arguments: tuple[str, ...] = ()
    budget_s: int
    output: str = "--output"


PARTS = (
    Part(module="roofline", budget_s=30, output=""),
    Part(module="kernels", arguments=("--repetitions", "5", "--no-compile"), budget_s=60),
    Part(
        module="engine",
        arguments=("--runs", "1", "--no-compile", "--rows", "text encode", "DiT step", "VAE decode"),
        budget_s=120,
    ),
    Part(module="scaling", arguments=("--chunks", "2", "--runs", "1"), budget_s=150),
    Part(module="service", arguments=("--quick",), budget_s=240),
)


def main() -> None:
    """Runs all parts in turn; exits with 1 if one of them failed or ran out of time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quick", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="where the JSON files go")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    table = Table("part", "s", "budget, s", "")
    outcomes = []
    for part in PARTS:
        before = time.monotonic()
        outcomes.append(run(part, args.folder))
        table.add_row(part.module, f"{time.monotonic() - before:.0f}", str(part.budget_s), outcomes[-1])
    Console().print(table)
    sys.exit(any(outcome != "done" for outcome in outcomes))


def run(part: Part, folder: Path) -> str:
    """Runs one part; how it ended."""
    command = [sys.executable, "-m", f"benchmarks.{part.module}", *part.arguments]
    if part.output:
        command += [part.output, str(folder / f"{part.module}.json")]
    print(f"\n$ {' '.join(command[1:])}", flush=True)
    process = subprocess.Popen(command)
    try:
        code = process.wait(timeout=part.budget_s)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return "out of time"
    return "done" if code == 0 else f"failed ({code})"


if __name__ == "__main__":
    main()
