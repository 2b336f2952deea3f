"""Breaks of the schemas."""

from k8s import schemas
from k8s.breaks.edits import Break, Breaks, container, named, worker

BREAKS: Breaks = {
    "an unknown field": (
        schemas.built_in,
        lambda m: named(m, "HorizontalPodAutoscaler", "helios-gateway")["spec"].update(maxReplica=9),
    ),
    "an unknown field in a nested pod": (
        schemas.built_in,
        lambda m: container(m, "ray-denoiser")["livenessProbe"].update(tries=3),
    ),
    "a wrong type": (
        schemas.built_in,
        lambda m: container(m, "gateway")["ports"][0].update(containerPort="50051"),
    ),
}

CUSTOM: dict[str, Break] = {
    "an unknown field": lambda m: m.ray["spec"].update(serveConfig="x"),
    "an unknown field of a group": lambda m: worker(m, "cpu").update(replica=1),
    "a wrong type": lambda m: m.ray["spec"].update(rayClusterDeletionDelaySeconds="60s"),
    "a group without bounds": lambda m: worker(m, "cpu").pop("maxReplicas"),
}
