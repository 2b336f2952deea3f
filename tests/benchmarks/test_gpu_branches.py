"""What the benchmarks do on a GPU and nowhere else, with CUDA's clocks and counters faked: the CPU computes."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import (
    ablation,
    engine,
    engine_row,
    engine_ways,
    fp8,
    gpu,
    peers,
    products,
    sizes,
    timing,
    vae_precision,
)
from benchmarks.ablation_case import COMMON_ROWS
from benchmarks.engine_row import COMPILED, EAGER, OURS, measure_row
from benchmarks.records import NOT_MEASURED
from benchmarks.sizes import SIZES, Size

PEAK_BYTES = 7_000


class AsCuda(str):
    """A device that the benchmarks take for a GPU, and torch for the CPU."""

    def __eq__(self, other: object) -> bool:
        return other == "cuda"

    def __hash__(self) -> int:
        return hash("cuda")


class Event:
    """A CUDA event, in wall time."""

    def __init__(self, **_: bool) -> None:
        self.at = 0.0

    def record(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, end: "Event") -> float:
        return 1e3 * (end.at - self.at)


@pytest.fixture
def size(monkeypatch: pytest.MonkeyPatch) -> Iterator[Size]:
    """A tiny model in bfloat16 with the switches of the published size, on a device that passes for a GPU."""
    fakes: dict[str, Any] = {
        "is_available": lambda: True,
        "synchronize": lambda *_: None,
        "Event": Event,
        "reset_peak_memory_stats": lambda: None,
        "memory_allocated": lambda: 1_000,
        "max_memory_allocated": lambda: 1_000 + PEAK_BYTES,
        "empty_cache": lambda: None,
        "mem_get_info": lambda: (70_000, 80_000),
        "get_device_capability": lambda *_: (9, 0),
        "device_count": lambda: 1,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(timing, "MATMUL", 64)
    monkeypatch.setattr("benchmarks.ceilings.copy_bandwidth", lambda *_: 1e10)
    state = {"name": "A GPU", "sm_clock": "1980 MHz"}
    for module in ("conditions", "engine"):
        monkeypatch.setattr(f"benchmarks.{module}.gpu_state", lambda: state)
    tiny = SIZES["tiny"]
    made = replace(
        tiny,
        name="as-cuda",
        device=AsCuda("cpu"),
        dtype=torch.bfloat16,
        transformer=replace(tiny.transformer, is_amplify_history=SIZES["gpu-full"].transformer.is_amplify_history),
    )
    monkeypatch.setitem(sizes.SIZES, "as-cuda", made)
    transformers = peers.transformers

    def joined(*arguments: Any) -> Any:
        ours, theirs = transformers(*arguments)
        peers.join_projections(ours, theirs)
        return ours, theirs

    monkeypatch.setattr(peers, "transformers", joined)
    threads = torch.get_num_threads()
    yield made
    torch.set_num_threads(threads)


def run(monkeypatch: pytest.MonkeyPatch, main: Any, file: Path, *arguments: str) -> dict[str, Any]:
    monkeypatch.setattr("sys.argv", ["x", "--size", "as-cuda", "--output", str(file), *arguments])
    main()
    report: dict[str, Any] = json.loads(file.read_text())
    return report


def test_the_engine_measures_every_row_of_a_gpu(size: Size, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = run(monkeypatch, engine.main, tmp_path / "r.json", "--no-compile", "--runs", "1", "--missing")
    assert report["our_modes"]["taken"] == "off"  # graphs cannot be recorded on a CPU: said, not raised
    assert report["our_modes"]["chunk [1,1,1], s"]["graphs"].startswith("failed: ")
    assert report["diffusers_projections"]["taken"] in (engine_ways.SEPARATE, engine_ways.JOINED)
    assert {engine_ways.SEPARATE, engine_ways.JOINED} == set(report["diffusers_projections"][f"{engine.FINEST}, s"])
    assert report["copy_bytes_per_s"] == 1e10
    assert report["conditions"]["gpu"] == "A GPU"
    for name in engine.ROW_NAMES:
        row = report["rows"][name]
        assert "differs" not in row, (name, row["relative_error"])
        assert row["share_of_roofline"] > 0
        assert row["gpu_state"]["sm_clock"] == "1980 MHz"
        assert row["memory"][EAGER]["working_bytes"] == row["memory"][OURS]["working_bytes"] == PEAK_BYTES
        assert set(row["ratio"]) == {EAGER}
        assert ("relative_error_with_tf32" in row) == name.startswith("VAE")
        assert ("fps" in row) == name.startswith("end to end")
        kept = row["memory"][OURS]["kept_bytes"] - row["memory"][EAGER]["kept_bytes"]
        assert (kept > 0) == name.startswith("DiT")  # the prompt's keys and values
    assert json.loads((tmp_path / "r.json").read_text())["rows"] == report["rows"]


def test_a_row_that_runs_out_of_memory_leaves_the_others(
    size: Size, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(row: Any, *arguments: Any) -> dict[str, Any]:
        if row.name == "text encode":
            raise torch.cuda.OutOfMemoryError("tried to allocate")
        return measure_row(row, *arguments)

    monkeypatch.setattr(engine, "measure_row", fails)
    report = run(monkeypatch, engine.main, tmp_path / "r.json", "--no-compile", "--runs", "1", "--rows", "text", "VAE")
    assert report["rows"]["text encode"] == "failed: OutOfMemoryError: tried to allocate"
    assert report["rows"]["VAE encode, a chunk"][COMPILED] == NOT_MEASURED
    assert "our_modes" not in report  # nothing of the DiT was asked for


def test_precision_and_speed_of_the_options_are_measured(
    size: Size, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = run(monkeypatch, vae_precision.main, tmp_path / "v.json", "--runs", "1")
    dtypes = {"float32", "float16", "bfloat16"}
    searched = {f"{dtype}{vae_precision.SEARCHED}" for dtype in dtypes}
    assert set(vae["results"]["seconds"]) == dtypes | searched
    assert vae["results"]["precision"]["float16"]["psnr_db"] > vae["results"]["precision"]["bfloat16"]["psnr_db"] > 20
    made = run(monkeypatch, fp8.main, tmp_path / "f.json", "--runs", "1", "--chunks", "1")
    assert made["results"]["seconds"]["fp8"]["runs"] == 1
    assert made["conditions"]["gpu"] == "A GPU"


def test_ablations_of_every_device_are_among_a_gpus(
    size: Size, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any) -> Iterator[Any]:
        return iter(())

    monkeypatch.setattr(ablation, "gpu_ablations", none)
    report = run(monkeypatch, ablation.main, tmp_path / "a.json", "--runs", "1")
    measured = {one["name"] for one in report["results"] if isinstance(one["worth"], float)}
    assert measured == set(COMMON_ROWS)


def test_the_whole_plan_of_a_gpu_runs(size: Size, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part's own command line, one after the other, on the model that passes for one on a GPU."""

    def no_ablations(*_: Any) -> Iterator[Any]:
        return iter(())

    def measured_once(works: Any, *, device: str, **_: int) -> Any:
        return timing.measure(works, device=device, runs=1, warmups=0)

    for module in (ablation, engine_row, engine_ways, fp8, vae_precision):
        monkeypatch.setattr(module, "measure", measured_once)
    monkeypatch.setattr(products, "REPETITIONS", {"cuda": 1})
    monkeypatch.setattr(ablation, "gpu_ablations", no_ablations)  # each has a test of its own
    left = {}
    for part in gpu.parts(size.name):
        command = part.arguments(tmp_path, part.limit_s)
        if command[1] == "pytest" or "compiled" in part.name or part.name == "kernels":
            continue  # the tests run in this suite; compilers and Triton's kernels have their own
        monkeypatch.setattr("sys.argv", command[1:])
        import_module(command[1]).main()
        report = json.loads((tmp_path / part.result).read_text())
        assert report["conditions"]["gpu"] == "A GPU"
        left[part.name] = gpu.left_out(part, tmp_path, {}, retry=False)
    ablated = left.pop("ablation")
    assert ablated is None  # those of GPUs were left out above
    assert set(left.values()) == {"complete"}
