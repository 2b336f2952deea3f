"""Scrape configuration and dashboards: one set of names, the ports that processes really use, nothing hard-coded."""

import json
import re
from typing import Any

import pytest
import yaml

from helios_services.config import ServiceConfig
from k8s.monitoring.generate import FOLDER
from k8s.monitoring.render import UNITS

JOBS = {"helios-gateway", "helios-dispatcher", "ray", "redis"}
BOARDS = sorted((FOLDER / "dashboards").glob("*.json"))


def documents(name: str) -> list[dict[str, Any]]:
    """The objects of a manifest."""
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def test_operator_and_plain_prometheus_call_their_jobs_what_the_rules_call_them() -> None:
    endpoints = [monitor["spec"]["podMetricsEndpoints"][0] for monitor in documents("podmonitors.yaml")]
    assert {relabel["replacement"] for endpoint in endpoints for relabel in endpoint["relabelings"]} == JOBS
    (plain,) = documents("prometheus.yml")
    assert {job["job_name"] for job in plain["scrape_configs"]} == JOBS
    queries = "".join(path.read_text() for path in [*(FOLDER / "rules").iterdir(), *BOARDS]).replace("\\", "")
    named = {name for names in re.findall(r'\bjob=~?"([^"]+)"', queries) for name in names.split("|")}
    assert named
    assert named <= JOBS


def test_targets_checked_in_are_the_default_ports() -> None:
    config = ServiceConfig()
    for name, port in (("gateway", config.gateway.metrics_port), ("dispatcher", config.dispatcher.metrics_port)):
        text = (FOLDER / f"targets/{name}.yaml").read_text()
        assert yaml.safe_load(text) == [{"targets": [f"127.0.0.1:{port}"]}]


def test_what_ray_drops_no_query_needs() -> None:
    (ray,) = (monitor for monitor in documents("podmonitors.yaml") if monitor["metadata"]["name"] == "helios-ray")
    dropped, _ = ray["spec"]["podMetricsEndpoints"][0]["metricRelabelings"]
    queries = "".join(path.read_text() for path in [*(FOLDER / "rules").iterdir(), *BOARDS])
    wanted = set(re.findall(r"\bray_\w+", queries))
    assert "ray_actors" in wanted
    assert {name for name in wanted if re.fullmatch(dropped["regex"], name)} == set()


def test_kustomize_installs_everything_there_is() -> None:
    (kustomization,) = documents("kustomization.yaml")
    (config_map,) = kustomization["configMapGenerator"]
    assert set(config_map["files"]) == {f"dashboards/{path.name}" for path in BOARDS}
    assert all((FOLDER / name).exists() for name in kustomization["resources"])


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_panels_have_unit_and_description_and_hard_code_no_source_or_instance(path: Any) -> None:
    board = json.loads(path.read_text())
    assert board["uid"] == path.stem
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource"]
    for panel in board["panels"]:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == panel["datasource"]["uid"] == "${datasource}"
            assert not re.search(r"\b(instance|pod|ip|NodeAddress)\s*=|\d+\.\d+\.\d+\.\d+", target["expr"])


def test_values_that_every_gateway_reads_from_the_store_are_never_summed() -> None:
    queries = [target["expr"] for path in BOARDS for panel in json.loads(path.read_text())["panels"]
               for target in panel["targets"]]  # fmt: skip
    rules = [rule["expr"] for path in (FOLDER / "rules").glob("*.yaml")
             for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]  # fmt: skip
    for expr in (*queries, *rules):
        for metric in re.finditer(r"helios_(queue_depth|queue_limit|jobs_total)\b", expr):
            assert re.search(r"\bmax( by \(\w+\))? \(?\(?(rate\()?$|\bmax\((rate\()?$", expr[: metric.start()]), expr
