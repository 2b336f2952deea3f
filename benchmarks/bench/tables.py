"""The report as tables in Markdown: one for each length, a column for each checkpoint and way."""

from collections.abc import Mapping
from typing import Any

from benchmarks.bench.metrics import METRICS, Metric
from benchmarks.bench.rows import FRECHET
from benchmarks.markdown import table

NONE = "–"
FRECHET_METRIC = Metric(name=FRECHET, label="naturalness: Fréchet distance, our classifier", unit="")
CAPTIONS = ("colour", "shape", "size", "direction", "speed", "present")


def tables(report: Mapping[str, Any]) -> str:
    """How it was measured, then for each length a table of values with their drift, and one of captions and rates."""
    where = report["conditions"]
    text = f"`{report['command']}`, {where['cpu']}, {where['date']}, commit {where['commit']}\n"
    for frames in sorted({row["frames"] for row in report["rows"].values()}):
        rows = {name: row for name, row in report["rows"].items() if row["frames"] == frames}
        names = {name: f"{name.rsplit('@', 1)[0]} ({row['videos']})" for name, row in rows.items()}
        text += f"\n### {frames} frames\nMean over all frames; in brackets the drift beyond that of real clips.\n"
        lines = [
            [
                f"{metric.label}{f', {metric.unit}' if metric.unit else ''}",
                *(_cell(row, metric.name) for row in rows.values()),
            ]
            for metric in (*METRICS, FRECHET_METRIC)
        ]
        text += table(["metric", *names.values()], lines)
        text += "\nFirst chunk against the caption, share of videos (an object: share of frames); rate end to end.\n"
        text += table(["", *names.values()], _captions(rows))
    return text


def _cell(row: Mapping[str, Any], name: str) -> str:
    values = row["metrics"].get(name)
    if values is None or values["mean"] is None:
        return NONE
    drift = values.get("drift_over_real")
    return _number(values["mean"]) + ("" if drift is None else f" ({drift:+.2g})")


def _captions(rows: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    lines = [
        [name, *(_number(row["captions"][name]) if row["captions"] else NONE for row in rows.values())]
        for name in CAPTIONS
    ]
    for key, label in (("fps", "frames a second"), ("first_chunk_s", "seconds to the first chunk")):
        lines.append([label, *(_number(row["speed"][key]) if row["speed"] else NONE for row in rows.values())])
    return lines


def _number(value: float) -> str:
    return f"{value:.3g}"
