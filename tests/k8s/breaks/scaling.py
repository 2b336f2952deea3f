"""Breaks of how gateways are scaled."""

from k8s import scaling
from k8s.breaks.edits import Breaks, config, named
from k8s.build import Object
from k8s.manifests import Manifests


def _hpa(manifests: Manifests) -> Object:
    spec: Object = named(manifests, "HorizontalPodAutoscaler", "helios-gateway")["spec"]
    return spec


BREAKS: Breaks = {
    "gateways scaled by CPU alone": (scaling.metrics, lambda m: _hpa(m)["metrics"].pop(1)),
    "gateways scaled by streams alone": (scaling.metrics, lambda m: _hpa(m)["metrics"].pop(0)),
    "a metric that nobody serves": (
        scaling.metrics,
        lambda m: _hpa(m)["metrics"][1]["pods"]["metric"].update(name="helios_streams"),
    ),
    "gateways filled to their limit": (
        scaling.metrics,
        lambda m: _hpa(m)["metrics"][1]["pods"]["target"].update(averageValue="2000"),
    ),
    "a lower limit with the same target": (
        scaling.metrics,
        lambda m: config(m, "max_concurrent_rpcs: 2000", "max_concurrent_rpcs: 1200"),
    ),
    "a key that is kept below the target": (
        scaling.metrics,
        lambda m: config(m, "max_concurrent_rpcs: 2000", "max_concurrent_rpcs_per_key: 1000"),
    ),
    "a hasty scaler": (
        scaling.patience,
        lambda m: _hpa(m)["behavior"]["scaleDown"].update(stabilizationWindowSeconds=60),
    ),
    "a scaler that takes half": (
        scaling.patience,
        lambda m: _hpa(m)["behavior"]["scaleDown"]["policies"][0].update(type="Percent", value=50),
    ),
}
