"""docs/performance.md says what the results say; the quick benchmark keeps to its time."""

import json
from pathlib import Path

import pytest

from benchmarks import performance_page, quick, roofline, service, service_process
from benchmarks.ablation_gpu import GPU_ROWS
from benchmarks.engine import ROW_NAMES
from benchmarks.performance_page import PAGES, RESULTS, TABLES, updated
from helios_engine.request import GenerationRequest
from helios_services.client.segments import submission

PAGE, README = PAGES


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_are_what_the_results_say(page: Path) -> None:
    assert updated(page.read_text(), RESULTS) == page.read_text(), "run python -m benchmarks.performance_page"


def test_every_table_has_its_place() -> None:
    assert all(f"<!-- table: {name} -->" in PAGE.read_text() for name in TABLES)
    assert "<!-- table: engine-cpu -->" in README.read_text()


def test_a_row_without_a_result_shows_no_figure_whatever_ran_last(tmp_path: Path) -> None:
    conditions = {"cpu": "c", "gpu": None, "threads": 1, "clock": "t", "torch": "2", "date": "d"}
    report = {"command": "python -m benchmarks.engine --rows VAE", "conditions": conditions, "rows": {}}
    (tmp_path / "engine-cpu.json").write_text(json.dumps(report))
    written = TABLES["engine-cpu"](tmp_path)
    assert written.count("not measured") == len(ROW_NAMES)
    assert "python -m" not in written  # nothing was measured, so there is no run to name


def test_a_changed_result_or_table_shows(tmp_path: Path) -> None:
    for file in RESULTS.glob("*.json"):
        (tmp_path / file.name).write_text(file.read_text())
    page = PAGE.read_text()
    assert updated(page, tmp_path) == page
    changed = json.loads((tmp_path / "ablation-cpu.json").read_text())
    changed["results"][0]["worth"] += 1.0
    (tmp_path / "ablation-cpu.json").write_text(json.dumps(changed))
    assert updated(page, tmp_path) != page


def test_gpu_rows_are_not_measured_until_there_is_a_result(tmp_path: Path) -> None:
    assert performance_page.ablation_gpu(tmp_path).count("not measured") == len(GPU_ROWS)
    name = next(iter(GPU_ROWS))
    conditions = {"cpu": "c", "gpu": "g", "threads": 1, "clock": "t", "torch": "2", "date": "d"}
    report = {"command": "x", "conditions": conditions, "results": [{"name": name, "worth": 1.234}]}
    (tmp_path / "ablation-gpu-full.json").write_text(json.dumps(report))
    written = performance_page.ablation_gpu(tmp_path)
    assert written.count("not measured") == len(GPU_ROWS) - 1
    assert "| 1.23 |" in written


def test_roofline_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["roofline", "--plot", str(tmp_path / "plot.png")])
    roofline.main()
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_quick_parts_exist_and_fit_into_ten_minutes(tmp_path: Path) -> None:
    assert sum(part.budget_s for part in quick.PARTS) <= quick.TOTAL_S
    for part in quick.PARTS:
        assert (Path(quick.__file__).parent / f"{part.module}.py").exists()


def test_a_part_that_takes_too_long_is_ended_and_said_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "benchmarks" / "sleeps.py"
    module.parent.mkdir()
    module.write_text("import sys, time\ntime.sleep(float(sys.argv[1]))\nsys.exit(int(sys.argv[2]))\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def outcome(*arguments: str, budget_s: int) -> str:
        return quick.run(quick.Part(module="sleeps", arguments=arguments, budget_s=budget_s, output=""), tmp_path)

    assert outcome("600", "0", budget_s=1) == "out of time"
    assert outcome("0", "0", budget_s=60) == "done"
    assert outcome("0", "3", budget_s=60) == "failed (3)"


@pytest.mark.parametrize("request_", [service.REQUEST, service.ONE_CHUNK])
def test_the_service_is_asked_for_the_engines_request(request_: GenerationRequest) -> None:
    sent = submission(**{name: getattr(request_, name) for name in service_process.SENT}).params
    assert list(sent.pyramid_steps) == list(request_.pyramid_steps or ())
    assert (sent.num_frames, sent.height, sent.width, sent.seed) == (request_.num_frames, 128, 128, 1)
    defaults = GenerationRequest(
        prompt=request_.prompt, **{name: getattr(request_, name) for name in service_process.SENT[1:]}
    )
    assert defaults == request_  # what is not sent is at its default
