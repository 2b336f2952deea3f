"""The service level objectives, and the Prometheus rules that follow from them.

An alert needs the error budget to burn fast over a long window (it matters) and a short one (it still does): the
multi-window multi-burn-rate alerts of the SRE Workbook, chapter 5.
"""

from dataclasses import dataclass
from typing import Any

WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


@dataclass(frozen=True, kw_only=True)
class Slo:
    """Good events are `objective` of all. `bad` and `total` are rates over `{w}`."""

    name: str
    alert: str
    objective: float
    bad: str
    total: str
    promise: str
    min_events: int = 10
    """In the long window: two jobs of which one failed wake nobody."""


@dataclass(frozen=True, kw_only=True)
class Burn:
    """Fires when the budget of 30 days burns `factor` times too fast over both windows."""

    factor: float
    long: str
    short: str


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Alerts of one severity."""

    suffix: str
    severity: str
    burns: tuple[Burn, ...]
    text: str


SPEEDS = (
    Speed(
        suffix="FastBurn",
        severity="critical",
        burns=(Burn(factor=14.4, long="1h", short="5m"), Burn(factor=6, long="6h", short="30m")),
        text="At this rate the month's error budget is gone within 2 to 5 days.",
    ),
    Speed(
        suffix="SlowBurn",
        severity="warning",
        burns=(Burn(factor=3, long="1d", short="2h"), Burn(factor=1, long="3d", short="6h")),
        text="At this rate the month's error budget does not last the month.",
    ),
)

# Thresholds in le must be bucket bounds of telemetry/metrics.py (a test holds them to it). Jobs ended are the store's
# own counter, the same from every gateway: max, not sum.
SLOS = (
    Slo(
        name="chunk_deadline",
        alert="HeliosChunkDeadline",
        objective=0.95,
        bad="sum(rate(helios_chunk_deadline_missed_total[{w}]))",
        total="sum(rate(helios_chunk_seconds_count[{w}]))",
        promise="95% of chunks are made in less time than they play",
    ),
    Slo(
        name="first_chunk",
        alert="HeliosFirstChunk",
        objective=0.95,
        bad="sum(rate(helios_time_to_first_chunk_seconds_count[{w}]))"
        ' - sum(rate(helios_time_to_first_chunk_seconds_bucket{{le="10.0"}}[{w}]))',
        total="sum(rate(helios_time_to_first_chunk_seconds_count[{w}]))",
        promise="95% of jobs have their first chunk within 10 s of submission",
    ),
    Slo(
        name="queue_wait",
        alert="HeliosQueueWait",
        objective=0.95,
        bad="sum(rate(helios_queue_wait_seconds_count[{w}]))"
        ' - sum(rate(helios_queue_wait_seconds_bucket{{le="30.0"}}[{w}]))',
        total="sum(rate(helios_queue_wait_seconds_count[{w}]))",
        promise="95% of attempts start within 30 s of queueing",
    ),
    Slo(
        name="job_failures",
        alert="HeliosJobFailures",
        objective=0.99,
        bad='max(rate(helios_jobs_total{{state="failed"}}[{w}]))',
        total='sum(max by (state) (rate(helios_jobs_total{{state=~"succeeded|failed"}}[{w}])))',
        promise="99% of jobs that end by themselves succeed",
    ),
)


def slo_groups() -> list[dict[str, Any]]:
    """Rule groups: for each objective its error ratios by window, its events, and its alerts."""
    return [{"name": f"slo-{slo.name}", "rules": [*_recorded(slo), *_alerts(slo)]} for slo in SLOS]


def _recorded(slo: Slo) -> list[dict[str, Any]]:
    labels = {"slo": slo.name}
    ratios = [
        {
            "record": f"slo:helios_errors:ratio_rate{window}",
            "expr": f"({slo.bad.format(w=window)}) / ({slo.total.format(w=window)} > 0)",
            "labels": labels,
        }
        for window in WINDOWS
    ]
    # rates times seconds rather than increase(), so that `total` is written once
    seconds = {"1h": 3600, "6h": 21600, "1d": 86400, "3d": 259200}
    events = [
        {
            "record": f"slo:helios_events:increase{window}",
            "expr": f"({slo.total.format(w=window)}) * {seconds[window]}",
            "labels": labels,
        }
        for speed in SPEEDS
        for window in (burn.long for burn in speed.burns)
    ]
    objective = {"record": "slo:helios_objective:ratio", "expr": f"vector({slo.objective})", "labels": labels}
    return [objective, *ratios, *events]


def _alerts(slo: Slo) -> list[dict[str, Any]]:
    return [
        {
            "alert": slo.alert + speed.suffix,
            "expr": "\nor\n".join(_condition(slo, burn) for burn in speed.burns) + "\n",
            "labels": {"severity": speed.severity},
            "annotations": {
                "summary": f"Error budget burns too fast: {slo.promise}.",
                "description": "{{ $value | humanizePercentage }} of events were bad over the long window, "
                f"{round((1 - slo.objective) * 100, 2):g}% are allowed. {speed.text}",
                "runbook_url": f"docs/runbook.md#{(slo.alert + speed.suffix).lower()}",
            },
        }
        for speed in SPEEDS
    ]


def _condition(slo: Slo, burn: Burn) -> str:
    limit = f"{round(burn.factor * (1 - slo.objective), 6):g}"
    chosen = f'{{slo="{slo.name}"}}'
    return (
        f"(slo:helios_errors:ratio_rate{burn.long}{chosen} > {limit}"
        f" and slo:helios_errors:ratio_rate{burn.short}{chosen} > {limit}"
        f" and slo:helios_events:increase{burn.long}{chosen} >= {slo.min_events})"
    )
