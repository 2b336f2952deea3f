"""The run of everything that needs a GPU: goes on where it stopped, keeps to its time. Nothing is measured here."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu, parts
from benchmarks.ablation_case import COMMON_ROWS, GPU_ROWS
from benchmarks.engine import ROW_NAMES, arguments
from benchmarks.engine_row import COMPILED
from benchmarks.gpu import Part, engine, left_out
from benchmarks.kernel_cases import SMALL, cases
from benchmarks.products import row_count
from benchmarks.records import NOT_MEASURED, write

MEASURED = {"ours": {"median": 1.0}, COMPILED: {"median": 2.0}}
EAGER_ONLY = {"ours": {"median": 1.0}, COMPILED: NOT_MEASURED}
RESULT = "engine-gpu-full.json"
SCRIPT = "import json,sys; json.dump({'made': 1}, open(sys.argv[1], 'w')); sys.exit(int(sys.argv[2]))"


def part(name: str, code: int, *, limit_s: float = 60.0) -> Part:
    """Writes its result and exits with that code."""
    result = f"{name}.json"
    return Part(
        name=name,
        command=("-c", SCRIPT, f"FOLDER/{result}", str(code)),
        limit_s=limit_s,
        result=result,
        complete=lambda report, _: code == 0 and report["made"] == 1,
    )


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> tuple[int, dict[str, str]]:
    monkeypatch.setattr("sys.argv", ["gpu", "--folder", str(folder), *arguments])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    return int(bool(ended.value.code)), json.loads((folder / gpu.STATUS).read_text())


def test_a_second_call_goes_on_where_the_first_one_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = (part("one", 0), part("two", 3))
    monkeypatch.setattr(gpu, "parts", lambda size: listed)
    assert run(monkeypatch, tmp_path) == (1, {"one": "done", "two": "failed (3)"})
    capsys.readouterr()
    assert run(monkeypatch, tmp_path)[0] == 1
    said = capsys.readouterr().out
    assert "one: complete" in said
    assert "two: before: failed (3)" in said
    assert "$ python" not in said  # nothing was run again
    run(monkeypatch, tmp_path, "--retry")
    assert capsys.readouterr().out.count("$ python") == 1


def test_no_part_starts_without_time_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "parts", lambda size: (part("one", 0),))
    write(tmp_path / gpu.STATUS, {})
    assert run(monkeypatch, tmp_path, "--minutes", "0.7") == (1, {})
    assert "one: no time left" in capsys.readouterr().out


def test_the_key_figures_come_first_and_what_compiles_only_with_time_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [part.name for part in gpu.parts()]
    assert names.index("engine") == 1  # after a look at the machine
    assert names.index("engine, compiled") > names.index("ablation")
    start = {part.name: sum(before.limit_s for before in gpu.parts()[:at]) for at, part in enumerate(gpu.parts())}
    assert start["fp8"] + 30 < 590  # one call of ten minutes reaches it if every part takes all of its time
    monkeypatch.setattr("sys.argv", ["gpu", "--folder", str(tmp_path), "--dry"])
    gpu.main()
    said = capsys.readouterr().out
    assert all(part.name in said for part in gpu.parts())
    assert "only if 300 s are left" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("row", "compiled", "retry", "complete"),
    [
        (MEASURED, True, False, True),
        (EAGER_ONLY, False, False, True),
        (EAGER_ONLY, True, False, False),
        (NOT_MEASURED, False, False, False),
        ("failed: out of memory", False, False, True),
        ("failed: out of memory", False, True, False),
        (MEASURED | {COMPILED: "failed: x"}, True, False, True),
        (MEASURED | {COMPILED: "failed: x"}, True, True, False),
    ],
)
def test_rows_of_the_engine_are_complete_when_nothing_is_left_to_measure(
    tmp_path: Path, row: Any, compiled: bool, retry: bool, complete: bool
) -> None:
    write(tmp_path / RESULT, {"rows": dict.fromkeys(ROW_NAMES, MEASURED) | {"DiT chunk [1,1,1]": row}})
    one = engine("engine", gpu.SIZE, 60, compiled=compiled)
    assert (left_out(one, tmp_path, {}, retry=retry) == "complete") is complete
    write(tmp_path / RESULT, {"rows": {"DiT chunk [1,1,1]": MEASURED}})
    assert left_out(one, tmp_path, {}, retry=False) is None  # the other rows


def test_parts_know_how_much_there_is_to_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = [{"kernel": case.name} for case in cases(SMALL, torch.device("cpu"))]
    assert gpu.timed({"results": timed}, False)
    assert not gpu.timed({"results": timed[1:]}, False)
    rows = [{"way": number} for number in range(row_count())]
    assert gpu.multiplied({"results": rows}, False)
    assert not gpu.multiplied({"results": rows[1:]}, False)
    one_failed = [{"failed": "out of memory"}, *rows[1:]]
    assert gpu.multiplied({"results": one_failed}, False)
    assert not gpu.multiplied({"results": one_failed}, True)
    ablated = [{"name": name, "worth": 1.0} for name in COMMON_ROWS | GPU_ROWS]
    assert gpu.ablated({"results": ablated}, False)
    assert not gpu.ablated({"results": ablated[1:]}, False)
    for one in gpu.parts():
        command = one.arguments(tmp_path, 90.0)
        assert "FOLDER" not in " ".join(command)
        if command[1] == "benchmarks.engine":
            monkeypatch.setattr("sys.argv", command[1:])
            assert arguments().missing
            assert arguments().budget_s in (None, 90.0)
            assert arguments().output == tmp_path / one.result


def test_a_process_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "GRACE_S", 0.2)
    ignores = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    assert parts.run(["-c", ignores], 1.0) == parts.OUT_OF_TIME
