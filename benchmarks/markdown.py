"""Tables in Markdown, and under which conditions they were measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import records
from benchmarks.records import NOT_MEASURED, is_measured

GPU_REPORTS = ("engine", "ablation", "vae-precision", "fp8", "bf16", "kernels")
"""The files of a GPU's results, NAME-gpu-full.json."""


def read(results: Path, name: str) -> dict[str, Any] | None:
    """A result, if there is one."""
    return records.read(results / f"{name}.json") or None


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, with an empty line before it. Empty text where there are no rows."""
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    return "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def source(report: dict[str, Any], more: str = "") -> str:
    """Under which conditions it was measured."""
    where = report["conditions"]
    machine = where.get("gpu") or f"{where['cpu']}, {where['threads']} thread"
    clock = where.get("clock") or report["method"]
    return f"\n`{report['command']}`, {machine}, {clock}, torch {where['torch']}, {where['date']}{more}\n"


def milliseconds(timing: Any) -> str:
    """A median, or why there is none."""
    return f"{timing['median'] * 1e3:.4g}" if is_measured(timing) else str(timing or NOT_MEASURED)


def measured_on_gpus(results: Path) -> dict[str, set[str]]:
    """The GPUs that each report has measurements of, by the report's name. Reports without any are left out."""
    found: dict[str, set[str]] = {}
    for name in GPU_REPORTS:
        report = read(results, f"{name}-gpu-full")
        if report is None:
            continue
        gpu = report["conditions"].get("gpu")
        if name == "engine":  # its file exists without measurements; each row says where it was measured
            gpus = {row.get("gpu") for row in report["rows"].values() if is_measured(row)}
        elif name == "ablation":
            gpus = {gpu for one in report["results"] if is_measured(one["worth"])}
        elif name == "kernels":
            gpus = {gpu for one in report["results"] if "failed" not in one}
        else:
            gpus = {gpu} if report.get("results") else set()
        if named := {gpu for gpu in gpus if gpu}:
            found[name] = named
    return found
