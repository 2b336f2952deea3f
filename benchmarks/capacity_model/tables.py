"""The tables as they are printed. benchmarks.capacity_page puts the same ones into docs/capacity.md."""

from collections.abc import Sequence
from typing import Any

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]
Column = tuple[str, str, str]
"""Label, path of the figure in the row, format."""
SIZES = [("denoisers", "denoisers", "d"), ("decoders", "decoders", "d")]
GPUS = [("GPUs", "gpus_mean", ".1f")]
RATE = [("chunks/s", "chunks_per_s", ".1f")]
BUSY = [("denoisers busy", "denoiser_utilisation", ".0%"), ("decoders busy", "decoder_utilisation", ".0%")]
WAITS = [
    ("interactive wait p99, s", "ranks.interactive.queue_wait_p99_s", ".2f"),
    ("first chunk p50, s", "ranks.interactive.first_chunk_p50_s", ".2f"),
    ("first chunk p99, s", "ranks.interactive.first_chunk_p99_s", ".2f"),
]
LATE = [("late chunks", "ranks.interactive.missed_share", ".2%")]
BATCH = [("batch wait p99, s", "ranks.batch.queue_wait_p99_s", ".1f")]
NEEDED = [
    ("jobs/s", "jobs_per_s", "g"),
    ("chunks/s", "chunks_per_s_needed", ".1f"),
    *SIZES, *GPUS, *BUSY, *WAITS, *LATE, *BATCH,
]  # fmt: skip

STUDIES: dict[str, tuple[str, list[Column]]] = {
    "needed": (
        "the smallest fleet; p99 of interactive waits 5 s, of first chunks 8 s, of batch waits 30 s; late chunks 1 %",
        NEEDED,
    ),
    "needed-2+2+2": ("the same at twice the steps of denoising, and late chunks are not bounded", NEEDED),
    "scale": (
        "80 % load, from 1 denoiser to 1000",
        [*SIZES, *RATE, *BUSY, *WAITS, *BATCH, ("simulated in CPU s", "simulated_in_cpu_s", ".1f")],
    ),
    "overload": (
        "40 denoisers, growing load, at most 1000 jobs queued",
        [("load", "load", ".0%"), *RATE, *BUSY, *WAITS, *BATCH, ("refused", "jobs.refused", "d")],
    ),
    "preemption": (
        "with and without preemption at chunk boundaries, 20 denoisers, 95 % load",
        [("preemption", "preemption", ""), *RATE, *BUSY, *WAITS, *BATCH, ("preemptions", "preemptions", "d")],
    ),
    "spot": (
        "denoisers that die after a mean time, back after 300 s; 40 denoisers, 80 % load of all of them",
        [
            ("mean hours to a loss", "mtbf_h", "g"), ("denoisers there", "denoisers_mean", ".1f"), *RATE, *BUSY,
            *WAITS, *BATCH, ("lost chunks", "lost_calls", "d"), ("failed jobs", "jobs.failed", "d"),
        ],
    ),
    "autoscaling": (
        "traffic trebles for 20 minutes; 20 denoisers, up to 120 by the rule",
        [
            ("a replica starts in, s", "start_s", ""), ("denoisers, mean", "denoisers_mean", ".1f"),
            ("GPUs, mean", "gpus_mean", ".1f"), *RATE, *BUSY, *WAITS, *BATCH,
        ],
    ),
    "routers": (
        "Ray Serve's router against an ideal one; 50 denoisers, 85 % load",
        [
            ("router", "router", ""), ("jobs at a time per denoiser", "slots_per_denoiser", "g"), *RATE, *BUSY, *WAITS,
            *LATE, ("unfinished jobs", "jobs.unfinished", "d"),
        ],
    ),
    "sessions": (
        "live sessions of 2 minutes, 40 denoisers: as fast as can be, or 4 chunks ahead of the viewer",
        [
            ("chunks ahead", "ahead_chunks", ""), ("sessions per denoiser", "sessions_per_denoiser", ".2f"),
            *RATE, *BUSY, *WAITS, *LATE,
        ],
    ),
}  # fmt: skip


def show_study(console: Console, name: str, rows: Sequence[Row]) -> None:
    """Prints a study."""
    title, columns = STUDIES[name]
    shown = Table(*(label for label, _, _ in columns), box=MARKDOWN)
    for cells in study_cells(name, rows):
        shown.add_row(*cells)
    console.print(f"\n**{name}**: {title}\n", highlight=False)
    console.print(shown)


VALIDATION = ("run", "jobs", "chunks", "figure", "measured", "replayed", "error", "drawn", "range of seeds", "error")


def show_validation(console: Console, report: Row) -> None:
    """Prints predicted against measured: with each chunk's own times, and with times drawn from all of the run's."""
    shown = Table(*VALIDATION, box=MARKDOWN)
    for cells in validation_cells(report):
        shown.add_row(*cells)
    console.print(shown)
    console.print(median_errors(report))


def study_cells(name: str, rows: Sequence[Row]) -> list[list[str]]:
    """Its table, row by row."""
    columns = STUDIES[name][1]
    return [[_cell(_dig(row, path), form) for _, path, form in columns] for row in rows]


def _cell(value: Any, form: str) -> str:
    if form:
        return format(value, form)
    return {None: "no limit", True: "on", False: "off"}.get(value, str(value))


def validation_cells(report: Row) -> list[list[str]]:
    """The validation's table, row by row."""
    found = []
    for row in report["rows"]:
        for key, truth in row["measured"].items():
            low, high = row["predicted_range"][key]
            found.append([
                row["run"], str(row["jobs"]), str(row["chunks"]), key, f"{truth:.3f}",
                f"{row['replayed'][key]:.3f}", f"{row['replayed_error'][key]:+.1%}",
                f"{row['predicted'][key]:.3f}", f"{low:.3f} to {high:.3f}", f"{row['error'][key]:+.1%}",
            ])  # fmt: skip
    return found


def median_errors(report: Row) -> str:
    """A line for each kind of error."""
    return "\n".join(
        f"median {kind}: " + ", ".join(f"{name} {error:.1%}" for name, error in errors.items())
        for kind, errors in report["median_error"].items()
    )


def _dig(row: Row, path: str) -> Any:
    value: Any = row
    for name in path.split("."):
        value = value[name]
    return value
