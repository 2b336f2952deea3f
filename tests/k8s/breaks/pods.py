"""Breaks of what every pod keeps to."""

from k8s import policies
from k8s.breaks.edits import Breaks, container, worker

BREAKS: Breaks = {
    "a Ray worker as root": (
        policies.hardened,
        lambda m: worker(m, "denoiser")["template"]["spec"].pop("securityContext"),
    ),
    "a writable root in an init container": (
        policies.hardened,
        lambda m: m.pod("ray-decoder").containers[1]["securityContext"].pop("readOnlyRootFilesystem"),
    ),
    "an autoscaler that keeps capabilities": (
        policies.hardened,
        lambda m: m.ray["spec"]["rayClusterConfig"]["autoscalerOptions"]["securityContext"].pop("capabilities"),
    ),
    "Ray without a token": (
        policies.authenticated,
        lambda m: m.ray["spec"]["rayClusterConfig"].pop("authOptions"),
    ),
    "no memory limit": (
        policies.hardened,
        lambda m: container(m, "gateway")["resources"]["limits"].pop("memory"),
    ),
    "image latest": (policies.hardened, lambda m: container(m, "redis").update(image="redis:latest")),
    "service links": (policies.hardened, lambda m: m.pod("gateway").spec.pop("enableServiceLinks")),
    "no tmp volume": (policies.writable, lambda m: container(m, "ray-cpu")["volumeMounts"].pop(2)),
    "no readiness": (policies.probed, lambda m: container(m, "ray-cpu").pop("readinessProbe")),
    "a decoder with a token": (
        policies.hardened,
        lambda m: m.pod("ray-decoder").spec.update(automountServiceAccountToken=True),
    ),
    "a decoder without seccomp": (
        policies.hardened,
        lambda m: m.pod("ray-decoder").spec["securityContext"].pop("seccompProfile"),
    ),
    "an autoscaler without a token": (
        policies.hardened,
        lambda m: m.pod("ray-head").spec.update(automountServiceAccountToken=False),
    ),
}
