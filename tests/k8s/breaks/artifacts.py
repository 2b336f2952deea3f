"""Breaks of where videos and uploads are kept."""

from k8s import artifacts
from k8s.breaks.edits import Break, Breaks, container, env, named
from k8s.build import Object
from k8s.manifests import Manifests


def _artifacts(manifests: Manifests, component: str) -> Object:
    mounts: list[Object] = container(manifests, component)["volumeMounts"]
    return next(mount for mount in mounts if mount["name"] == "artifacts")


BREAKS: Breaks = {
    "a decoder without the bucket's keys": (
        artifacts.artifacts,
        lambda m: container(m, "ray-decoder")["env"].pop(),
    ),
    "a decoder that may not reach the bucket": (
        artifacts.artifacts,
        lambda m: named(m, "NetworkPolicy", "bucket")["spec"]["podSelector"]["matchExpressions"][0]["values"].remove(
            "ray-decoder"
        ),
    ),
    "a bucket's keys for everybody": (
        artifacts.artifacts,
        lambda m: env(m, "ray-denoiser", name="AWS_ACCESS_KEY_ID", value=""),
    ),
}

VOLUME: dict[str, Break] = {
    "a gateway that cannot keep uploads": lambda m: _artifacts(m, "gateway").update(readOnly=True),
    "a dispatcher that cannot publish": lambda m: _artifacts(m, "ray-cpu").update(readOnly=True),
    "a claim that nobody may write": (
        lambda m: m.pod("gateway").volume("artifacts")["persistentVolumeClaim"].update(readOnly=True)
    ),
    "a decoder that could replace videos": lambda m: _artifacts(m, "ray-denoiser").pop("readOnly"),
    "a decoder without uploads": lambda m: _artifacts(m, "ray-denoiser").update(mountPath="/uploads"),
    "another volume for each": (
        lambda m: m.pod("ray-cpu").volume("artifacts")["persistentVolumeClaim"].update(claimName="other")
    ),
}
