"""Every panel's and every rule's query returns data from a real service that a real Prometheus watches.

What cannot have data on a machine without GPUs, or without a redis_exporter, is listed here with its reason.
"""

import math
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.monitoring.dashboards import dashboards
from k8s.monitoring.generate import FOLDER
from k8s.monitoring.live import EXPORTERS, Prometheus, wait_until, watched_service
from k8s.monitoring.load import make_load, steady_load

pytestmark = [
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus on PATH (Debian: prometheus)"),
    pytest.mark.timeout(1200),
]
NO_DATA = {"ray_node_gram_used": "no GPU", "ray_node_gram_available": "no GPU", "ray_node_gpus_utilization": "no GPU"}
if not any(map(shutil.which, EXPORTERS)):
    NO_DATA |= {"redis_": "no redis_exporter on PATH (Debian: prometheus-redis-exporter)"}
METRIC = re.compile(r"\b((?:helios|ray|redis|slo)[_:][\w:]*|up)\b(?:\{([^}]*)\})?")
PANELS = [
    pytest.param(target["expr"], id=f"{board['title']}: {panel['title']}: {target['refId']}")
    for board in dashboards().values()
    for panel in board["panels"]
    for target in panel["targets"]
]
RULES: list[dict[str, Any]] = [
    rule
    for path in sorted((FOLDER / "rules").glob("*.yaml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]


@pytest.fixture(scope="module")
def prometheus(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with watched_service(checkpoint, tmp_path_factory.mktemp("watched")) as (address, prometheus):
        make_load(address)
        with steady_load(address):
            # Ray's agent, which reports every 10 s, has seen the death
            wait_until(lambda: prometheus.query("helios:replica_failures:increase15m > 0"), 300)
            yield prometheus


def series_of(prometheus: Prometheus, expr: str) -> list[dict[str, Any]]:
    """The series of a query, once there are any: where processes are short of CPU a scrape fails now and then, and
    Ray's agent drops a gauge that was not reported for 20 s, until it is."""
    with suppress(TimeoutError):
        return wait_until(lambda: prometheus.query(expr), 120)
    return []


def missing_here(expr: str) -> str | None:
    """Why a query has no data here."""
    return next((reason for name, reason in NO_DATA.items() if name in expr), None)


@pytest.mark.parametrize("expr", PANELS)
def test_panel_shows_data(prometheus: Prometheus, expr: str) -> None:
    expr = expr.replace("$__rate_interval", "5m")
    if reason := missing_here(expr):
        assert not prometheus.query(expr), f"has data after all: it should not be listed as {reason}"
        pytest.skip(reason)
    series = series_of(prometheus, expr)
    assert any(math.isfinite(float(one["value"][1])) for one in series), series


def test_every_rule_is_evaluated_without_an_error(prometheus: Prometheus) -> None:
    groups = prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(RULES)
    assert {(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"} == set()


def test_every_recording_has_data(prometheus: Prometheus) -> None:
    for rule in (rule for rule in RULES if "record" in rule):
        chosen = ",".join(f'{name}="{value}"' for name, value in rule.get("labels", {}).items())
        assert series_of(prometheus, f"{rule['record']}{{{chosen}}}"), rule


def test_every_alert_asks_for_metrics_and_labels_that_there_are(prometheus: Prometheus) -> None:
    for rule in (rule for rule in RULES if "alert" in rule):
        asked = METRIC.findall(rule["expr"])
        assert asked, rule
        for name, matchers in asked:
            if missing_here(name):
                continue
            series = series_of(prometheus, name)
            assert series, f"{rule['alert']}: {name}"
            for label in re.findall(r"(\w+)\s*=", matchers):
                assert any(label in one["metric"] for one in series), f"{rule['alert']}: {name}{{{label}}}"


def test_a_healthy_service_has_no_alert_about_its_processes(prometheus: Prometheus) -> None:
    firing = {one["metric"]["alertname"] for one in prometheus.query('ALERTS{alertstate="firing"}')}
    # the tiny model on two shared cores keeps no deadline, and the load fills the queue on purpose
    allowed = {name for name in firing if re.match("Helios(ChunkDeadline|FirstChunk|QueueWait|Queue|HostMemory)", name)}
    assert firing - allowed == set()
