"""Breaks of who may reach whom."""

from k8s import network
from k8s.breaks.edits import Breaks, config, named, remove

BREAKS: Breaks = {
    "a policy for nobody": (
        network.resolve,
        lambda m: named(m, "NetworkPolicy", "ray")["spec"].update(podSelector={"matchLabels": {"runtime": "ray"}}),
    ),
    "a port that is not the pod's": (
        network.resolve,
        lambda m: named(m, "NetworkPolicy", "redis")["spec"]["ingress"][0].update(ports=[{"port": "grpc"}]),
    ),
    "no default": (network.closed, lambda m: remove(m, "NetworkPolicy", "default-deny")),
    "an open dashboard": (
        network.closed,
        lambda m: named(m, "NetworkPolicy", "ray-head")["spec"]["ingress"].append({"ports": [{"port": 8265}]}),
    ),
    "a Redis that leaves the cluster": (
        network.closed,
        lambda m: named(m, "Service", "helios-redis")["spec"].update(type="LoadBalancer"),
    ),
    "a gateway that cannot reach Redis": (
        network.connected,
        lambda m: named(m, "NetworkPolicy", "gateway")["spec"].pop("egress"),
    ),
    "metrics that nobody may read": (
        network.connected,
        lambda m: named(m, "NetworkPolicy", "ray-cpu")["spec"].pop("ingress"),
    ),
    "Redis for a namespace": (
        network.narrow,
        lambda m: named(m, "NetworkPolicy", "redis")["spec"]["ingress"][0]["from"].append(
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}}
        ),
    ),
    "Redis for decoders": (
        network.narrow,
        lambda m: named(m, "NetworkPolicy", "redis")["spec"]["ingress"][0]["from"].append(
            {"podSelector": {"matchLabels": {"app.kubernetes.io/component": "ray-decoder"}}}
        ),
    ),
    "Redis on any port": (
        network.narrow,
        lambda m: named(m, "NetworkPolicy", "redis")["spec"]["ingress"][0].pop("ports"),
    ),
    "a way out to anyone": (
        network.narrow,
        lambda m: named(m, "NetworkPolicy", "gateway")["spec"]["egress"].append({"ports": [{"port": 443}]}),
    ),
    "a way out that leads inside": (
        network.narrow,
        lambda m: named(m, "NetworkPolicy", "weights")["spec"]["egress"][0]["to"][0]["ipBlock"].pop("except"),
    ),
    "spans that go nowhere": (network.traced, lambda m: remove(m, "NetworkPolicy", "tracing")),
    "a collector on another port": (network.traced, lambda m: config(m, "svc:4317", "svc:4318")),
    "a collector outside": (network.traced, lambda m: config(m, "otel-collector.monitoring.svc", "otel.example.org")),
}
