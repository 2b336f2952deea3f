"""Results are kept: whatever ends a run, and whatever a later one could not measure."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.records import NOT_MEASURED, better, failed, is_measured, merged, write

ROW = {"ours": {"median": 1.0}, "compiled": {"median": 2.0}}
NEWER = {"ours": {"median": 0.5}, "compiled": {"median": 1.0}}
FAILURE = failed(RuntimeError("out of\n memory"))


@pytest.mark.parametrize(
    ("before", "now", "stays"),
    [
        (None, ROW, ROW),
        (NOT_MEASURED, ROW, ROW),
        (ROW, NEWER, NEWER),
        (ROW, FAILURE, ROW),
        (ROW, NOT_MEASURED, ROW),
        (FAILURE, NOT_MEASURED, FAILURE),
        (NOT_MEASURED, FAILURE, FAILURE),
        (None, NOT_MEASURED, NOT_MEASURED),
        (ROW, NEWER | {"compiled": NOT_MEASURED}, ROW),
        (ROW, NEWER | {"compiled": FAILURE}, ROW),
        (ROW | {"compiled": FAILURE}, NEWER | {"compiled": NOT_MEASURED}, NEWER | {"compiled": NOT_MEASURED}),
    ],
)
def test_a_measurement_is_replaced_by_a_measurement_only(before: Any, now: Any, stays: Any) -> None:
    assert better(before, now, ("compiled",)) == stays
    rows = {} if before is None else {"row": before}
    assert merged({"other": ROW} | rows, {"row": now}, ("compiled",)) == {"other": ROW, "row": stays}


def test_a_failure_says_what_it_was() -> None:
    assert FAILURE == "failed: RuntimeError: out of memory"
    assert not is_measured(FAILURE)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "new" / "result.json"
    write(file, {"a": 1})
    with pytest.raises(TypeError):
        write(file, {"a": object()})
    assert json.loads(file.read_text()) == {"a": 1}
    assert list(file.parent.iterdir()) == [file]
