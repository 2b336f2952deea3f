"""docs/performance.md says what the results say; the quick benchmark keeps to its time."""

import json
from pathlib import Path

import pytest

from benchmarks import parts, performance_page, performance_tables, quick, roofline, service, service_process
from benchmarks.ablation_case import COMMON_ROWS, GPU_ROWS
from benchmarks.engine import ROW_NAMES
from benchmarks.engine_row import COMPILED, EAGER, OURS
from benchmarks.performance_page import ALL_TABLES, PAGES, updated
from benchmarks.performance_tables import TABLES
from benchmarks.records import RESULTS
from helios_engine.request import GenerationRequest
from helios_services.client.calls import submission

PAGE, README, _ = PAGES


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_are_what_the_results_say(page: Path) -> None:
    assert updated(page.read_text(), RESULTS) == page.read_text(), "run python -m benchmarks.performance_page"


def test_every_table_has_its_place() -> None:
    assert all(any(f"<!-- table: {name} -->" in page.read_text() for page in PAGES) for name in ALL_TABLES)
    assert "<!-- table: gpu-limits -->" in README.read_text()


def test_a_row_without_a_result_shows_no_figure_whatever_ran_last(tmp_path: Path) -> None:
    conditions = {"cpu": "c", "gpu": None, "threads": 1, "clock": "t", "torch": "2", "date": "d"}
    report = {"command": "python -m benchmarks.engine --rows VAE", "conditions": conditions, "rows": {}}
    (tmp_path / "engine-cpu.json").write_text(json.dumps(report))
    written = TABLES["engine-cpu"](tmp_path)
    assert written == ""  # nothing was measured, so there is neither a row nor a run to name


def test_a_changed_result_or_table_shows(tmp_path: Path) -> None:
    for file in RESULTS.glob("*.json"):
        (tmp_path / file.name).write_text(file.read_text())
    page = PAGE.read_text()
    assert updated(page, tmp_path) == page
    changed = json.loads((tmp_path / "ablation-cpu.json").read_text())
    changed["results"][0]["worth"] += 1.0
    (tmp_path / "ablation-cpu.json").write_text(json.dumps(changed))
    assert updated(page, tmp_path) != page


def test_gpu_rows_have_no_place_until_there_is_a_result(tmp_path: Path) -> None:
    assert performance_tables.ablation_gpu(tmp_path) == ""
    name = next(iter(GPU_ROWS))
    conditions = {"cpu": "c", "gpu": "g", "threads": 1, "clock": "t", "torch": "2", "date": "d"}
    times = {"with": {"median": 0.5}, "without": {"median": 0.617}}
    one = {"name": name, "part": "p", "worth": 1.234, "taken": True} | times
    report = {"command": "x", "conditions": conditions, "results": [one]}
    (tmp_path / "ablation-gpu-full.json").write_text(json.dumps(report))
    written = performance_tables.ablation_gpu(tmp_path)
    assert [name for name in COMMON_ROWS | GPU_ROWS if f"| {name} |" in written] == [one["name"]]
    assert "| 500 | 617 | 1.23 | yes |" in written
    assert "`x`, g, t, torch 2, d" in written  # the GPU, not the host's processor


CONDITIONS = {"cpu": "c", "gpu": "An H100", "threads": 1, "clock": "t", "torch": "2", "date": "d", "commit": "abc"}


def timed(seconds: float) -> dict[str, float]:
    return {"median": seconds, "min": seconds, "max": seconds}


def test_a_measured_gpu_row_shows_its_figures_and_ends_the_disclaimer(tmp_path: Path) -> None:
    row = {OURS: timed(1.1), EAGER: timed(2.2), COMPILED: "failed: E: x", "commit": "abc", "relative_error": 0.01}
    row |= {"ratio": {EAGER: timed(2.0)}, "share_of_roofline": 0.5, "date": "d", "torch": "2", "gpu": "An H100"}
    row |= {"fps": {OURS: 30.0, EAGER: 15.0}, "memory": {OURS: {"kept_bytes": 30e9, "working_bytes": 5e9}}}
    name = "end to end, a chunk [1,1,1]"
    report = {"command": "c", "conditions": CONDITIONS, "rows": {name: row}}
    (tmp_path / "engine-gpu-full.json").write_text(json.dumps(report))
    written = TABLES["engine-gpu-full"](tmp_path)
    cells = "| 1100 | 2200 | failed: E: x | 2.00 (2.00 to 2.00) | - | 50% | 35.0, -, - | 30.0, 15.0, - |"
    assert f"| {name} {cells}" in written
    assert "19.5 FPS" in written
    assert [other for other in ROW_NAMES if f"| {other} |" in written] == [name]
    assert "An H100" in TABLES["gpu-measured"](tmp_path)
    assert "No figure" not in TABLES["gpu-measured"](tmp_path) + TABLES["gpu-limits"](tmp_path)
    report["rows"] = {name: row | {"differs": True}}
    (tmp_path / "engine-gpu-full.json").write_text(json.dumps(report))
    assert f"{name} (results differ by 1.0e-02)" in TABLES["engine-gpu-full"](tmp_path)
    report["rows"] = {name: "failed: x"}
    (tmp_path / "engine-gpu-full.json").write_text(json.dumps(report))
    assert "No figure of a GPU" in TABLES["gpu-measured"](tmp_path)


def test_precision_on_a_gpu_is_shown_with_its_speed(tmp_path: Path) -> None:
    precision = {"bfloat16": {"psnr_db": 40.0, "largest_difference_levels": 3}}
    vae = {"precision": precision, "seconds": {"float32": timed(0.4), "bfloat16": timed(0.1)}}
    report = {"command": "c", "conditions": CONDITIONS, "results": vae}
    (tmp_path / "vae-precision-gpu-full.json").write_text(json.dumps(report))
    errors = {"latent_error_by_chunk": [0.02], "seconds": {"plain": timed(2.0), "fp8": "not measured"}}
    fp8 = {"command": "c", "conditions": CONDITIONS, "plain_dtype": "bfloat16", "results": errors}
    (tmp_path / "fp8-gpu-full.json").write_text(json.dumps(fp8))
    written = TABLES["precision"](tmp_path)
    assert "GPU | PSNR 40.0 dB, at most 3 levels of 255 | 400 ms to 100 ms a chunk: 4.00x |" in written
    assert "GPU | latents differ by 2.0% in chunks 0 to 0 | not measured |" in written
    stages = {"DiT step, stage 0": {"ours": 0.005, "diffusers": 0.006}}
    bf16 = {"command": "c", "conditions": CONDITIONS, "layers": 4, "results": stages}
    (tmp_path / "bf16-gpu-full.json").write_text(json.dumps(bf16))
    assert "| DiT step, stage 0, GPU | 0.500% | 0.600% |" in TABLES["bf16"](tmp_path)


def test_kernels_on_a_gpu_are_shown_against_their_roofline(tmp_path: Path) -> None:
    assert TABLES["kernels-gpu"](tmp_path) == ""
    took = {"triton": {"median_us": 20.0}, "reference": {"median_us": 50.0}, "compiled reference": "not measured (x)"}
    results = [{"kernel": "a", "shape": "1", "roofline_us": 10.0} | took, {"kernel": "b", "shape": "2", "failed": "no"}]
    facts = {name: value for name, value in CONDITIONS.items() if name != "clock"}
    report = {"command": "c", "method": "CUDA events", "conditions": facts, "results": results}
    (tmp_path / "kernels-gpu-full.json").write_text(json.dumps(report))
    written = TABLES["kernels-gpu"](tmp_path)
    assert "| a | 1 | 20.0 | 50% | 2.50 | not measured (x) |" in written
    assert "| b | 2 | no | - | - | - |" in written


def test_asking_for_help_writes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- table: roofline -->\n<!-- end -->")
    monkeypatch.setattr(performance_page, "PAGES", (page,))
    monkeypatch.setattr("sys.argv", ["performance_page", "--help"])
    with pytest.raises(SystemExit):
        performance_page.main()
    assert "TFLOP" not in page.read_text()


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
        part = quick.Part(module="sleeps", arguments=arguments, budget_s=budget_s, output="")
        return parts.run(part.command(tmp_path), budget_s)

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
