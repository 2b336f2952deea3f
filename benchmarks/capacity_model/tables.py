"""The tables, printed as Markdown: docs/capacity.md has them as they are printed."""

from collections.abc import Sequence
from typing import Any

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]
SIZES = [("denoisers", "denoisers", "d"), ("decoders", "decoders", "d")]
LOAD = [("denoiser util.", "denoiser_utilisation", ".0%"), ("decoder util.", "decoder_utilisation", ".0%")]
WAITS = [
    ("wait p50 s", "ranks.interactive.queue_wait_p50_s", ".2f"),
    ("p99", "ranks.interactive.queue_wait_p99_s", ".2f"),
    ("1st chunk p50 s", "ranks.interactive.first_chunk_p50_s", ".2f"),
    ("p99", "ranks.interactive.first_chunk_p99_s", ".2f"),
    ("late chunks", "ranks.interactive.missed_share", ".2%"),
]
BATCH = [("batch wait p99 s", "ranks.batch.queue_wait_p99_s", ".1f")]
RATE = [("chunks/s", "chunks_per_s", ".1f")]
NEEDED = [
    ("jobs/s", "jobs_per_s", "g"), ("chunks/s needed", "chunks_per_s_needed", ".1f"), *SIZES,
    ("GPUs", "gpus_mean", ".1f"), *LOAD, *WAITS, *BATCH,
]  # fmt: skip

STUDIES: dict[str, tuple[str, list[tuple[str, str, str]]]] = {
    "scale": (
        "80 % load, from 1 GPU to 10,000 (waits, first chunks and late chunks: of interactive jobs)",
        [*SIZES, *RATE, *LOAD, *WAITS, *BATCH, ("simulated in CPU s", "simulated_in_cpu_s", ".1f")],
    ),
    "needed": (
        "the smallest fleet; p99 of interactive waits 5 s, of first chunks 8 s, of batch waits 30 s; late chunks 1 %",
        NEEDED,
    ),
    "needed-2+2+2": (
        "the same at twice the steps of denoising; late chunks are not bounded, as a chunk takes longer than it plays",
        NEEDED,
    ),
    "overload": (
        "40 denoisers, growing load, at most 1000 jobs queued",
        [("load", "load", ".0%"), *RATE, *LOAD, *WAITS, *BATCH, ("refused", "jobs.refused", "d")],
    ),
    "preemption": (
        "with and without preemption at chunk boundaries (the service preempts), 20 denoisers, 95 % load",
        [("preemption", "preemption", ""), *RATE, *LOAD, *WAITS, *BATCH, ("preemptions", "preemptions", "d")],
    ),
    "spot": (
        "denoisers that die (mean time between losses), back after 300 s; 40 denoisers, 80 % load of all of them",
        [
            ("MTBF h", "mtbf_h", "g"), ("denoisers there", "denoisers_mean", ".1f"), *RATE, *LOAD, *WAITS, *BATCH,
            ("lost chunks", "lost_calls", "d"), ("failed jobs", "jobs.failed", "d"),
        ],
    ),
    "autoscaling": (
        "traffic trebles for 20 minutes; 20 denoisers, up to 120 by the rule; replicas start in",
        [
            ("start s", "start_s", ""), ("denoisers, mean", "denoisers_mean", ".1f"),
            ("GPUs, mean", "gpus_mean", ".1f"), *RATE, *LOAD, *WAITS, *BATCH,
        ],
    ),
    "routers": (
        "Ray Serve's router (two random replicas, growing pauses) against an immediate one; 50 denoisers, 85 % load",
        [
            ("router", "router", ""), ("slots / denoiser", "slots_per_denoiser", "g"), *RATE, *LOAD, *WAITS,
            ("unfinished", "jobs.unfinished", "d"),
        ],
    ),
    "sessions": (
        "live sessions of 2 minutes, 40 denoisers: as fast as can be, or 4 chunks ahead of the viewer",
        [
            ("chunks ahead", "ahead_chunks", ""), ("sessions / denoiser", "sessions_per_denoiser", ".2f"),
            *RATE, *LOAD, *WAITS,
        ],
    ),
}  # fmt: skip


def show_study(console: Console, name: str, rows: Sequence[Row]) -> None:
    """Prints a study."""
    title, columns = STUDIES[name]
    table = Table(*(label for label, _, _ in columns), box=MARKDOWN)
    for row in rows:
        table.add_row(*(format(_dig(row, path), form) if form else str(_dig(row, path)) for _, path, form in columns))
    console.print(f"\n**{name}**: {title}\n", highlight=False)
    console.print(table)


def show_validation(console: Console, report: Row) -> None:
    """Prints predicted against measured: with each chunk's own times, and with times drawn from all of the run's."""
    table = Table(
        "run", "jobs", "chunks", "figure", "measured", "replayed", "error", "drawn", "range of seeds", "error",
        box=MARKDOWN,
    )  # fmt: skip
    for row in report["rows"]:
        for key, truth in row["measured"].items():
            low, high = row["predicted_range"][key]
            table.add_row(
                row["run"], str(row["jobs"]), str(row["chunks"]), key, f"{truth:.3f}",
                f"{row['replayed'][key]:.3f}", f"{row['replayed_error'][key]:+.1%}",
                f"{row['predicted'][key]:.3f}", f"{low:.3f} to {high:.3f}", f"{row['error'][key]:+.1%}",
            )  # fmt: skip
    console.print(table)
    for kind, errors in report["median_error"].items():
        console.print(f"median {kind}: " + ", ".join(f"{name} {error:.1%}" for name, error in errors.items()))


def _dig(row: Row, path: str) -> Any:
    value: Any = row
    for name in path.split("."):
        value = value[name]
    return value
