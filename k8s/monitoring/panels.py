"""Grafana's JSON for the kinds of panel that the dashboards use. The data source is a variable."""

from dataclasses import dataclass
from typing import Any

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS, HEIGHT = 3, 8
INTERVAL = "$__rate_interval"


@dataclass(frozen=True, kw_only=True)
class Query:
    """A PromQL expression and what its series are called, `{{label}}` filled in."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """A panel; `unit` is one of Grafana's unit names."""

    title: str
    unit: str
    description: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    limit: float | None = None
    """A line or colour change here: the objective or the alert's threshold."""


def one(expr: str, legend: str) -> tuple[Query, ...]:
    """A single query."""
    return (Query(expr=expr, legend=legend),)


def rate(metric: str) -> str:
    """The rate of a counter, which may have matchers, over Grafana's interval."""
    return f"rate({metric}[{INTERVAL}])"


def quantiles(metric: str, by: str = "", matchers: str = "") -> tuple[Query, ...]:
    """Median and 95th percentile of a histogram, by a label if one is named."""
    group = f"le, {by}" if by else "le"
    name = f" {{{{{by}}}}}" if by else ""
    selector = f"{metric}_bucket{{{matchers}}}" if matchers else f"{metric}_bucket"
    return tuple(
        Query(expr=f"histogram_quantile({q}, sum by ({group}) ({rate(selector)}))", legend=f"p{q * 100:g}{name}")
        for q in (0.5, 0.95)
    )


def dashboard(uid: str, title: str, description: str, panels: list[Panel]) -> dict[str, Any]:
    """The dashboard, three panels a row."""
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["helios"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "links": [
            {"type": "dashboards", "title": "Helios", "tags": ["helios"], "asDropdown": True, "keepTime": True},
        ],
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}]
        },
        "panels": [_panel(index, panel) for index, panel in enumerate(panels)],
    }


def _panel(index: int, panel: Panel) -> dict[str, Any]:
    width = 24 // COLUMNS
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    drawn = {"custom": {"thresholdsStyle": {"mode": "line"}}} if panel.limit is not None else {}
    return {
        "id": index + 1,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": {"x": index % COLUMNS * width, "y": index // COLUMNS * HEIGHT, "w": width, "h": HEIGHT},
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "thresholds": {"mode": "absolute", "steps": steps},
                **(drawn if panel.kind == "timeseries" else {}),
            },
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}} if panel.kind == "timeseries" else {},
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": SOURCE, "expr": query.expr, "legendFormat": query.legend}
            for n, query in enumerate(panel.queries)
        ],
    }
