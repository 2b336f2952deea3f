"""The picture of drift over time: metrics from a video's start to its end, one line for each checkpoint and way."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.bench.metrics import METRICS

SHOWN = (
    "colour",
    "shape",
    "present",
    "persistent",
    "sharpness",
    "saturation",
    "palette",
    "flow",
    "interpolation_error",
)
REAL = "real"


def plot(report: Mapping[str, Any], file: Path) -> None:
    """Draws the longest videos of the report; real clips are grey and dashed."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    frames = max(row["frames"] for row in report["rows"].values())
    rows = {name.rsplit("@", 1)[0]: row for name, row in report["rows"].items() if row["frames"] == frames}
    labels = {metric.name: f"{metric.label.partition(':')[0]}, {metric.unit}" for metric in METRICS}
    figure, axes = pyplot.subplots(3, 3, figsize=(12, 8), sharex=True, layout="constrained")
    for axis, metric in zip(axes.flat, SHOWN, strict=True):
        for name, row in rows.items():
            course = row["course"].get(metric)
            if course is not None:
                style = {"color": "grey", "linestyle": "--"} if name == REAL else {}
                values = [float("nan") if value is None else value for value in course["value"]]
                axis.plot(course["frame"], values, label=name, **style)
        axis.set_title(labels[metric], fontsize=9)
        axis.set_ylim(bottom=0)
    for axis in axes[-1]:
        axis.set_xlabel("frame")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles or axes[1, 1].get_lines(), names or list(rows), loc="outside lower center", ncols=4, fontsize=8
    )
    file.parent.mkdir(exist_ok=True, parents=True)
    figure.savefig(file, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
