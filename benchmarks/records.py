"""Results' files: written after each row, and never a measurement replaced by none."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
NOT_MEASURED = "not measured"
FAILED = "failed: "
LONGEST_MESSAGE = 160


def failed(failure: BaseException) -> str:
    """What a row says in place of a measurement."""
    message = " ".join(str(failure).split())[:LONGEST_MESSAGE]
    return f"{FAILED}{type(failure).__name__}: {message}"


def read(file: Path) -> dict[str, Any]:
    """The report in the file; empty where there is none."""
    report: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return report


def write(file: Path, report: Mapping[str, Any]) -> None:
    """All of it or nothing, whenever the process is ended."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(report, indent=2) + "\n")
    unfinished.replace(file)


def is_measured(row: Any) -> bool:
    """Whether a row or a column of it is a measurement, not the reason why there is none."""
    return isinstance(row, (dict, list, int, float))


def better(before: Any, now: Any, columns: tuple[str, ...] = ()) -> Any:
    """Which of two records of a row stays: the newer one, unless it lacks what the older one has measured.

    columns: parts of a row that may be missing while the row is measured.
    """
    if not is_measured(now):
        return before if is_measured(before) or (now == NOT_MEASURED and before is not None) else now
    if is_measured(before) and any(is_measured(before.get(c)) and not is_measured(now.get(c)) for c in columns):
        return before
    return now


def merged(before: Mapping[str, Any], now: Mapping[str, Any], columns: tuple[str, ...] = ()) -> dict[str, Any]:
    """Rows by name: of each the better one."""
    return {**before, **{name: better(before.get(name), row, columns) for name, row in now.items()}}
