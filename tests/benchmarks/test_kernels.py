"""The kernel benchmark counts bytes as it says, and never shows a figure that it has not measured."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import kernels
from benchmarks.kernel_cases import SMALL, Case, cases, tensor_bytes
from benchmarks.kernel_timing import time_function

CPU = torch.device("cpu")


def test_every_kernel_has_a_case_and_its_bytes_are_counted_from_the_shapes() -> None:
    moved = {(case.name, case.shape): case.bytes_moved() for case in cases(SMALL, CPU)}
    assert len(moved) == 16
    rows = 690 * 640 * 4
    assert moved["modulated_norm", "1x690x640 float32"] == 2 * rows + 2 * 2 * 640 * 4
    assert moved["add_gated_modulated_norm", "1x690x640 float32"] == 4 * rows + 3 * 2 * 640 * 4
    assert moved["rgb_frames", "3x5x96x160 float32"] == 5 * 96 * 160 * (3 * 4 + 3)
    assert moved["yuv420_frames of RGB", "5x96x160x3 uint8"] == 5 * 96 * 160 * 3 * 3 // 2


def test_tensor_bytes_counts_what_a_view_shows() -> None:
    assert tensor_bytes((torch.zeros(4, 6)[:, :2], 3, "x")) == 32


def test_times_are_of_the_function() -> None:
    calls: list[int] = []
    timing = time_function(lambda: calls.append(0), CPU, repetitions=7)
    assert timing.repetitions == 7
    assert len(calls) > 7
    assert 0 <= timing.p10_us <= timing.median_us <= timing.p90_us


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CPU's report")
def test_report_on_a_cpu_has_no_triton_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "kernels.json"
    command = ["kernels", "--only", "renoise", "--repetitions", "2", "--no-compile", "--output", str(output)]
    monkeypatch.setattr("sys.argv", command)
    kernels.main()
    report = json.loads(output.read_text())
    assert [result["kernel"] for result in report["results"]] == ["renoise", "upsample_renoise"]
    for result in report["results"]:
        assert result["triton"] == result["roofline_us"] == kernels.NOT_MEASURED
        assert result["reference"]["median_us"] > 0
    assert {"cpu", "torch", "commit", "date", "device", "triton"} <= set(report["conditions"])


def test_a_reference_that_does_not_compile_is_reported_as_such() -> None:
    def unsupported(x: torch.Tensor) -> float:
        torch._dynamo.graph_break()
        return float(x)

    case = Case(name="none", launcher=unsupported, reference=unsupported, arguments=(torch.zeros(1),), shape="1")
    measured = kernels.measure(case, CPU, 2, None, compiled=True)
    assert measured["compiled reference"].startswith("not measured (")
