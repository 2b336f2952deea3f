"""Rules: promtool accepts them, every alert fires and stays silent when it should, and has its place in the runbook."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from helios_services.telemetry.metrics import WAIT_BUCKETS
from k8s.monitoring.generate import FOLDER, generated
from k8s.monitoring.slos import SLOS, SPEEDS
from monitoring.cases import ALERTS, Case, slo_cases

ROOT = FOLDER.parents[1]
RULES = sorted((FOLDER / "rules").glob("*.yaml"))
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed"
)


def alerts() -> dict[str, dict[str, Any]]:
    """Every alert by name."""
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def test_generated_files_are_in_step_with_their_sources() -> None:
    for path, text in generated().items():
        assert path.read_text() == text, f"{path.name}: run `make monitoring`"


def test_the_operator_gets_the_same_rules_as_a_plain_prometheus() -> None:
    objects = list(yaml.safe_load_all((FOLDER / "prometheusrules.yaml").read_text()))
    wrapped = {item["metadata"]["name"].removeprefix("helios-"): item["spec"] for item in objects}
    assert wrapped == {path.stem: yaml.safe_load(path.read_text()) for path in RULES}


@needs_promtool
def test_promtool_accepts_rules_and_configuration() -> None:
    for command in (["check", "rules", *map(str, RULES)], ["check", "config", str(FOLDER / "prometheus.yml")]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    cases = (*ALERTS, *slo_cases())
    assert {case.alert for case in cases if case.fires} == set(alerts())
    assert {case.alert for case in cases if case.silent} == set(alerts())


@needs_promtool
@pytest.mark.timeout(1200)  # of CPU time it takes half a minute
def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    cases = [_promtool_case(index, case) for index, case in enumerate((*ALERTS, *slo_cases()))]
    file = tmp_path / "cases.yaml"
    file.write_text(yaml.safe_dump({"rule_files": list(map(str, RULES)), "evaluation_interval": "1m", "tests": cases}))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _promtool_case(index: int, case: Case) -> dict[str, Any]:
    expr = f'count by (alertname) (ALERTS{{alertname="{case.alert}", alertstate="firing"}})'
    firing = [{"labels": f'{{alertname="{case.alert}"}}', "value": 1}]
    checks: list[tuple[int, list[dict[str, Any]]]] = [(minute, []) for minute in case.silent] + [
        (minute, firing) for minute in case.fires
    ]
    test: dict[str, Any] = {
        "name": f"{index} {case.alert}",
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "promql_expr_test": [
            {"expr": expr, "eval_time": f"{minute}m", "exp_samples": samples} for minute, samples in checks
        ],
    }
    if case.annotations:
        labels = {"HeliosReplicaDeaths": {"deployment": "denoiser"}}.get(
            case.alert, {"instance": "a:1", "GpuIndex": "0"}
        )
        rule = alerts()[case.alert]
        expected = {
            "exp_labels": {**rule["labels"], **labels},
            "exp_annotations": {**case.annotations, "runbook_url": rule["annotations"]["runbook_url"]},
        }
        test["alert_rule_test"] = [
            {"alertname": case.alert, "eval_time": f"{case.fires[0]}m", "exp_alerts": [expected]}
        ]
    return test


def test_alerts_say_what_is_wrong_how_bad_it_is_and_where_to_read_on() -> None:
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, name
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def test_the_runbook_has_cause_and_action_for_exactly_the_alerts_there_are() -> None:
    sections = re.split(r"^### ", (ROOT / "docs/runbook.md").read_text(), flags=re.MULTILINE)[1:]
    entries = {section.splitlines()[0].strip(): section for section in sections}
    assert set(entries) == set(alerts())
    for name, text in entries.items():
        assert "**Cause.**" in text, name
        assert "**Action.**" in text, name


def test_objectives_can_be_measured_and_their_alerts_can_fire() -> None:
    for slo in SLOS:
        for bound in re.findall(r'le="([\d.]+)"', slo.bad):
            assert float(bound) in WAIT_BUCKETS
        for burn in (burn for speed in SPEEDS for burn in speed.burns):
            assert burn.factor * (1 - slo.objective) < 1, slo.name
