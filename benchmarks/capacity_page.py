"""Writes the tables of docs/capacity.md from the results: `python -m benchmarks.capacity_page`.

Apart from benchmarks.performance_page, which runs without the service's packages. A test holds the page to the results.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.capacity_model.stage_times import ASSUMED, DIT_TFLOPS, ENCODE_FPS, VAE_TFLOPS, chunk_tflop
from benchmarks.capacity_model.tables import STUDIES, VALIDATION, median_errors, study_cells, validation_cells
from benchmarks.markdown import read, table
from benchmarks.performance_page import ROOT, updated
from benchmarks.records import RESULTS
from helios_engine.request import FRAMES_PER_CHUNK

PAGE = ROOT / "docs" / "capacity.md"


def main() -> None:
    """Writes the page."""
    PAGE.write_text(updated(PAGE.read_text(), RESULTS, CAPACITY_TABLES))
    print(f"written to {PAGE}")


def assumed(_: Path) -> str:
    """The stage times that all studies rest on."""
    denoise_tflop, decode_tflop = chunk_tflop()
    dit, vae = f"assumed {DIT_TFLOPS:.0f} TFLOP/s", f"assumed {VAE_TFLOPS:.0f} TFLOP/s"
    denoise_s, decode_s, encode_s = ASSUMED.denoise_s[0], ASSUMED.decode_s[0], ASSUMED.encode_s[0]
    h264 = f"assumed {ENCODE_FPS:.0f} frames/s"
    rows = (
        ("DiT, steps 2+2+2", f"{2 * denoise_tflop:.0f} TFLOP, counted", dit, f"{2 * denoise_s:.3f}"),
        ("DiT, steps 1+1+1", f"{denoise_tflop:.0f} TFLOP, counted", dit, f"{denoise_s:.3f}"),
        ("VAE decode", f"{decode_tflop:.0f} TFLOP, counted", vae, f"{decode_s:.3f}"),
        ("H.264", f"{FRAMES_PER_CHUNK} frames", h264, f"{encode_s:.3f}"),
        ("text encoder, once a job", "-", "assumed", f"{ASSUMED.text_s[0]:.3f}"),
    )
    return table(("stage", "work of a chunk", "rate", "seconds"), rows)


def study(name: str, results: Path) -> str:
    """One study, and the run that it is from."""
    report = _report(results)[name]
    header = [label for label, _, _ in STUDIES[name][1]]
    where = report["conditions"]
    source = f"`{report['command']}`, seed {report['seed']}, simpy {where['simpy']}"
    return table(header, study_cells(name, report["rows"])) + f"\n{source}, {where['date']}, commit {where['commit']}\n"


def validation(results: Path) -> str:
    """The model against the service."""
    report = _report(results)["validation"]
    where = report["conditions"]
    source = f"`{report['command']}`, {where['cpu']}, {where['cores']} cores, {where['date']}, commit {where['commit']}"
    errors = "".join(f"- {line}\n" for line in median_errors(report).splitlines())
    return f"{table(VALIDATION, validation_cells(report))}\n{errors}\n{source}\n"


def _report(results: Path) -> dict[str, Any]:
    report = read(results, "capacity")
    assert report is not None, "capacity.json is missing"
    return report


CAPACITY_TABLES: dict[str, Callable[[Path], str]] = {
    "capacity-assumed": assumed,
    **{f"capacity-{name}": partial(study, name) for name in STUDIES},
    "capacity-validation": validation,
}


if __name__ == "__main__":
    main()
