"""The gateways' scaler: by streams and by CPU, with room for a gateway that goes, and in no hurry to take one away."""

from collections.abc import Iterator

import yaml

from k8s.build import K8S, Object
from k8s.manifests import Manifests, quantity
from k8s.service import gateway_config

LONGEST_STREAM_S = 14_520 / 24
"""model.max_frames at 24 frames a second: the longest video in real time."""
TOLERANCE = 1.1
"""An HPA leaves things as they are within a tenth of its target."""


def adapter_rules() -> list[Object]:
    """What prometheus-adapter is told to serve."""
    rules: list[Object] = yaml.safe_load((K8S / "monitoring/prometheus-adapter.yaml").read_text())["rules"]["custom"]
    return rules


def metrics(manifests: Manifests) -> Iterator[str]:
    """CPU always; streams where there are gateways to lose one of, by a metric that the adapter serves."""
    served = {rule["name"]["as"] for rule in adapter_rules()}
    for item in manifests.of_kind("HorizontalPodAutoscaler"):
        asked = {metric["type"]: metric for metric in item["spec"]["metrics"]}
        if asked.get("Resource", {}).get("resource", {}).get("name") != "cpu":
            yield "HPA: does not look at CPU"
        pods, fewest = asked.get("Pods"), item["spec"]["minReplicas"]
        if pods is None:
            if fewest > 1:
                yield "HPA: does not look at streams"
            continue
        if pods["pods"]["metric"]["name"] not in served:
            yield f"HPA: the adapter does not serve {pods['pods']['metric']['name']}"
        limit, target = gateway_config(manifests).gateway.max_concurrent_rpcs, pods["pods"]["target"]
        wanted = quantity(target["averageValue"])
        if target["type"] != "AverageValue" or wanted > limit * (fewest - 1) / fewest:
            yield f"HPA: at {wanted:g} streams each, {fewest} gateways cannot lose one: {limit} is the limit"
        of_key = gateway_config(manifests).gateway.max_concurrent_rpcs_per_key
        if wanted * TOLERANCE >= of_key:
            yield f"HPA: at {wanted:g} streams each, a single API key ({of_key} at most) would bring no gateway"
        if wanted < limit / 4:
            yield f"HPA: {wanted:g} streams are little for a gateway that may carry {limit}"


def patience(manifests: Manifests) -> Iterator[str]:
    """Gateways go one at a time, and only when none was needed for as long as a stream may last."""
    behaviours = [item["spec"].get("behavior", {}) for item in manifests.of_kind("HorizontalPodAutoscaler")]
    for item in manifests.of_kind("ScaledObject"):
        behaviours.append(item["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"])
    for behaviour in behaviours:
        down = behaviour.get("scaleDown", {})
        if down.get("stabilizationWindowSeconds", 300) < LONGEST_STREAM_S:
            yield "scaler: forgets load within the time of one stream"
        if any(policy["type"] != "Pods" or policy["value"] > 1 for policy in down.get("policies", [{"type": "none"}])):
            yield "scaler: takes several gateways at a time"


CHECKS = (metrics, patience)
