"""Draws the dashboards from real data for the documentation: `python -m k8s.monitoring.render`.

A drawing of the same queries, not a screenshot of Grafana. Starts a service with a tiny random
model under load and a Prometheus, asks for every panel's queries, and writes docs/images/dashboard-*.png.
"""

import argparse
import math
import tempfile
import time
from pathlib import Path
from typing import Any

from helios_engine.loading.tiny import write_tiny
from k8s.monitoring.dashboards import dashboards
from k8s.monitoring.generate import FOLDER
from k8s.monitoring.live import Prometheus, watched_service
from k8s.monitoring.load import make_load

IMAGES = FOLDER.parents[1] / "docs/images"
RATE_INTERVAL = "30s"
COLUMNS = 3
UNITS = {
    "s": (1, "s"),
    "percentunit": (100, "%"),
    "percent": (1, "%"),
    "bytes": (2**-20, "MiB"),
    "Bps": (2**-10, "KiB/s"),
    "ops": (1, "/s"),
    "reqps": (1, "/s"),
    "fps": (1, "frames/s"),
    "short": (1, ""),
}
"""Grafana's units: factor and what is written at the axis."""


def main() -> None:
    """Makes the load, then the pictures."""
    parser = argparse.ArgumentParser(prog="python -m k8s.monitoring.render", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds of load")
    parser.add_argument("--output", type=Path, default=IMAGES)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="helios-render-") as name:
        folder = Path(name)
        write_tiny(folder / "checkpoint")
        with watched_service(folder / "checkpoint", folder) as (address, prometheus):
            start = time.time()
            make_load(address, args.rounds)
            time.sleep(10)  # Ray's agent reports every few seconds
            for uid, board in dashboards().items():
                path = args.output / f"dashboard-{uid.removeprefix('helios-')}.png"
                draw(board, prometheus, start, time.time(), path)
                print(path)


def draw(board: dict[str, Any], prometheus: Prometheus, start: float, end: float, path: Path) -> None:
    """One picture: the dashboard's panels over the time from `start` to `end`."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    rows = math.ceil(len(board["panels"]) / COLUMNS)
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=(16, 3.3 * rows + 0.9), squeeze=False, layout="constrained")
    figure.suptitle(
        f"{board['title']}: {board['description']}\ndrawn by k8s/monitoring/render.py from Prometheus;"
        " a tiny random model on CPU under a test load, one decoder killed on purpose",
        fontsize=11,
    )
    for axis in axes.flat[len(board["panels"]) :]:
        axis.set_axis_off()
    for axis, panel in zip(axes.flat, board["panels"], strict=False):
        _draw_panel(axis, panel, prometheus, start, end)
    figure.savefig(path, dpi=75)
    pyplot.close(figure)


def _draw_panel(axis: Any, panel: dict[str, Any], prometheus: Prometheus, start: float, end: float) -> None:
    factor, unit = UNITS[panel["fieldConfig"]["defaults"]["unit"]]
    axis.set_title(panel["title"] + (f" ({unit})" if unit else ""), fontsize=10, loc="left")
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)
    drawn = 0
    for target in panel["targets"]:
        expr = target["expr"].replace("$__rate_interval", RATE_INTERVAL)
        for series in prometheus.get("query_range", query=expr, start=start, end=end, step=1)["result"]:
            values = {round(float(at) - start): float(value) * factor for at, value in series["values"]}
            seconds = range(min(values), max(values) + 1)
            label = _legend(target["legendFormat"], series["metric"])
            points = [values.get(second, math.nan) for second in seconds]  # no line across a gap
            axis.plot(seconds, points, label=label, linewidth=1.4, color=f"C{drawn % 10}")
            drawn += 1
    if not drawn:
        axis.text(0.5, 0.5, "no data on this machine", ha="center", va="center", transform=axis.transAxes, color="gray")
        return
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    for step in steps[1:]:
        axis.axhline(step["value"] * factor, color="red", linewidth=0.8, linestyle="--")
    axis.set_xlim(0, end - start)
    axis.set_ylim(0, axis.get_ylim()[1] * 1.05)
    axis.set_xlabel("seconds", fontsize=8)
    axis.legend(fontsize=7, loc="best", ncols=1 if drawn < 3 else 2, framealpha=0.6)


def _legend(text: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return text


if __name__ == "__main__":
    main()
