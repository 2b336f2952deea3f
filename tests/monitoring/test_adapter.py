"""What prometheus-adapter serves to the gateways' HPA: from series that gateways have, summed as promtool sums them."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from helios.v1 import video_generation_pb2 as pb
from helios_services.gateway.guard.metrics import CallMetrics
from k8s.monitoring.generate import FOLDER

FIELDS = {"seriesQuery", "resources", "name", "metricsQuery"}
"""The fields of a rule that are used here; the adapter ignores names that it does not know."""
GATEWAY = 'job="helios-gateway",namespace="%s",pod="%s",method="%s"'


@pytest.fixture
def rule() -> dict[str, Any]:
    """The only rule, which follows the adapter's format."""
    values = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())
    assert set(values) == {"prometheus", "rules"}
    assert values["rules"]["default"] is False
    (only,) = values["rules"]["custom"]
    assert set(only) == FIELDS
    assert only["resources"] == {"overrides": {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}}
    return dict(only)


def series_name(rule: dict[str, Any]) -> str:
    return str(rule["seriesQuery"].partition("{")[0])


def test_the_series_and_its_labels_are_what_a_gateway_exposes(rule: dict[str, Any]) -> None:
    registry = CollectorRegistry()
    CallMetrics(registry, "grpc")
    (family,) = (each for each in registry.collect() if each.name == series_name(rule))
    assert {tuple(sample.labels) for sample in family.samples} == {("method",)}
    (asked,) = re.findall(r'method=~"([^"]+)"', rule["metricsQuery"])
    methods = pb.DESCRIPTOR.services_by_name["VideoGeneration"].methods
    streams = {method.name for method in methods if method.server_streaming or method.client_streaming}
    assert set(asked.split("|")) == streams
    assert streams < {sample.labels["method"] for sample in family.samples}
    # the rest comes with the scrape: `job` by relabelling, namespace and pod from the operator
    monitors = yaml.safe_load_all((FOLDER / "podmonitors.yaml").read_text())
    (gateway,) = (each for each in monitors if each["metadata"]["name"] == "helios-gateway")
    (relabelled,) = gateway["spec"]["podMetricsEndpoints"][0]["relabelings"]
    assert f'{relabelled["targetLabel"]}="{relabelled["replacement"]}"' in rule["seriesQuery"]
    labels = set(re.findall(r"(\w+)!?=~?\"", rule["seriesQuery"]))
    assert labels == {"job", "namespace", "pod"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")
def test_streams_are_summed_by_pod_and_unary_calls_left_out(rule: dict[str, Any], tmp_path: Path) -> None:
    name = series_name(rule)
    calls = {
        GATEWAY % ("helios", "a", "StreamVideo"): 3,
        GATEWAY % ("helios", "a", "WatchJob"): 2,
        GATEWAY % ("helios", "a", "GetJob"): 7,
        GATEWAY % ("helios", "b", "Interact"): 1,
        GATEWAY % ("other", "a", "StreamVideo"): 90,
        'job="helios-gateway",method="StreamVideo"': 400,  # a Prometheus without the operator: no pod to name
    }
    # as the adapter fills the template in for an HPA in the namespace helios
    query = rule["metricsQuery"]
    for field, value in {
        "Series": name,
        "LabelMatchers": 'namespace="helios",pod=~"a|b"',
        "GroupBy": "pod",
    }.items():
        query = query.replace(f"<<.{field}>>", value)
    assert "<<" not in query
    expected = [{"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in (("a", 9), ("b", 1))]
    discovered = [{"labels": f"{name}{{{labels}}}", "value": n} for labels, n in calls.items() if "pod=" in labels]
    test = {
        "interval": "1m",
        "input_series": [
            *({"series": f"{name}{{{labels}}}", "values": f"{n}x5"} for labels, n in calls.items()),
            {"series": f"helios_http_active_requests{{{GATEWAY % ('helios', 'a', 'StreamVideo')}}}", "values": "4x5"},
        ],
        "promql_expr_test": [
            {"expr": query, "eval_time": "2m", "exp_samples": expected},
            {"expr": rule["seriesQuery"], "eval_time": "2m", "exp_samples": discovered},
        ],
    }
    file = tmp_path / "adapter.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [], "tests": [test]}))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
