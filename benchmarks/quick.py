"""A look at everything that this machine can measure in ten minutes: `python -m benchmarks.quick` (`make bench`).

Each part has a time budget and is ended when it is over. Figures go to a folder of their own: those in
benchmarks/results come from the parts' own commands, with their own numbers of runs.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.parts import DONE, Outcomes

TOTAL_S = 600


@dataclass(frozen=True, kw_only=True)
class Part:
    """A benchmark's module and arguments. output: how it is told where to write; empty: it only prints."""

    module: str
    arguments: tuple[str, ...] = ()
    budget_s: int
    output: str = "--output"

    def command(self, folder: Path) -> list[str]:
        """What follows `python`."""
        output = [self.output, str(folder / f"{self.module}.json")] if self.output else []
        return ["-m", f"benchmarks.{self.module}", *self.arguments, *output]


PARTS = (
    Part(module="roofline", budget_s=30, output=""),
    Part(module="kernels", arguments=("--repetitions", "5", "--no-compile"), budget_s=60),
    Part(
        module="engine",
        arguments=("--fresh", "--runs", "1", "--no-compile", "--rows", "text encode", "DiT step", "VAE decode"),
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
    outcomes = Outcomes()
    for part in PARTS:
        outcomes.run(part.module, part.command(args.folder), part.budget_s)
    outcomes.show()
    sys.exit(any(outcome != DONE for outcome in outcomes.outcomes.values()))


if __name__ == "__main__":
    main()
