"""Runs the fault suite and writes its table: `python -m tests.faults.report` writes docs/reliability.md.

With arguments (test files, as for pytest) it runs those and keeps the other rows of the last run.
"""

import datetime
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from faults.elsewhere import ELSEWHERE  # noqa: E402 - found through the path above
from faults.invariants import HEAD, INVARIANTS  # noqa: E402

PAGE, RESULTS = TESTS.parent / "docs/reliability.md", TESTS.parent / "docs/reliability.json"
ASSERTED = "what the test asserts"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One test with one set of parameters; of tests elsewhere, all of their parameters."""

    number: int
    test: str
    fault: str
    seen: str
    outcome: str
    run: str


class Recorder:
    """A pytest plugin that collects the rows of a run."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._marks: dict[str, list[tuple[int, str]]] = {}
        self.rows: list[Row] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Remembers which tests have which numbers."""
        for item in items:
            marks = [(mark.kwargs["number"], mark.kwargs["fault"]) for mark in item.iter_markers("fault")]
            function = _short(item.nodeid).partition("[")[0]
            self._marks[item.nodeid] = marks + ([ELSEWHERE[function]] if function in ELSEWHERE else [])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called for set-up, call and teardown of each test."""
        if report.when != "call" and not report.failed:
            return
        seen = "; ".join(str(value) for name, value in report.user_properties if name == "seen")
        for number, fault in self._marks.get(report.nodeid, ()):
            test = _short(report.nodeid)
            self.rows.append(
                Row(number=number, test=test, fault=fault, seen=seen, outcome=report.outcome, run=self._run)
            )


def rows() -> list[Row]:
    """The rows of the last run."""
    return [Row(**row) for row in json.loads(RESULTS.read_text())] if RESULTS.exists() else []


def page(rows: list[Row]) -> str:
    """The document."""
    lines = [HEAD, "Runs: " + "; ".join(sorted({row.run for row in rows})) + ".", ""]
    for number, invariant in INVARIANTS.items():
        own = [row for row in rows if row.number == number]
        lines += [f"## {number}. {invariant}", ""]
        if own:
            lines += ["| test | fault | seen | outcome |", "|---|---|---|---|"]
            lines += [
                f"| `{row.test}` | {row.fault} | {row.seen or 'what the test asserts'} | {row.outcome} |" for row in own
            ]
        else:
            lines += ["No test yet."]
        lines += [""]
    return "\n".join(lines)


def _short(nodeid: str) -> str:
    return nodeid.removeprefix("tests/")


def _merged(rows: list[Row]) -> list[Row]:
    """Parameters of tests elsewhere as one row, passed if all passed."""
    merged: dict[tuple[int, str], Row] = {}
    for row in rows:
        function = row.test.partition("[")[0]
        name = function if function in ELSEWHERE else row.test
        before = merged.get((row.number, name))
        failed = before is not None and before.outcome != "passed"
        outcome = before.outcome if before is not None and failed else row.outcome
        merged[row.number, name] = Row(**asdict(row) | {"test": name, "outcome": outcome})
    return list(merged.values())


def _run_name() -> str:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=TESTS).stdout
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, commit {commit.strip()}"


def main(arguments: list[str]) -> int:
    """Runs and writes; pytest's exit code."""
    recorder = Recorder(_run_name())
    chosen = arguments or [str(TESTS / "faults"), *(str(TESTS / test) for test in ELSEWHERE)]
    code = pytest.main([*chosen, "-q", "--rootdir", str(TESTS.parent)], plugins=[recorder])
    new = _merged(recorder.rows)
    files = {row.test.partition("::")[0] for row in new}
    kept = [row for row in rows() if arguments and row.test.partition("::")[0] not in files]
    ordered = sorted([*kept, *new], key=lambda row: (row.number, row.test.startswith("services/"), row.test))
    RESULTS.write_text(json.dumps([asdict(row) for row in ordered], indent=1) + "\n")
    PAGE.write_text(page(ordered))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
