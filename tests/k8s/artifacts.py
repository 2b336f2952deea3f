"""Finished videos and uploads: their users have the volume, in the right mode, or the bucket's keys and a way out."""

from collections.abc import Iterator

from k8s.build import Object
from k8s.manifests import Manifests, Pod, selects
from k8s.service import placed, ray_config

KEYS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
HTTPS = 443


def users(manifests: Manifests) -> dict[str, bool]:
    """Names of the pods that use the store, and whether they write."""
    config = ray_config(manifests)
    found = {manifests.pod("gateway").name: True}  # keeps uploads, delivers videos
    for pod in manifests.pods:
        homes = [id(deployment) for deployment in placed(config, pod)]
        if id(config.dispatcher) in homes:
            found[pod.name] = True  # publishes videos
        elif id(config.decoder) in homes:
            found[pod.name] = False  # starts jobs from uploads
    return found


def artifacts(manifests: Manifests) -> Iterator[str]:
    """Gateways write uploads and read videos, dispatchers write videos, decoders read uploads."""
    url = ray_config(manifests).artifact_url
    needs, claims = users(manifests), set()
    for pod in manifests.pods:
        if pod.name not in needs:
            if KEYS & _environment(pod):
                yield f"{pod.name}: has keys of a bucket that it does not use"
        elif url.startswith("s3://"):
            if not _environment(pod) >= KEYS:
                yield f"{pod.name}: has no keys of {url}"
            if not _reaches_https(manifests, pod):
                yield f"{pod.name}: may not send to {url}"
        else:
            mount = next((mount for mount in pod.main["volumeMounts"] if mount["mountPath"] == url), None)
            if mount is None:
                yield f"{pod.name}: does not share {url}"
                continue
            source = pod.volume(mount["name"])["persistentVolumeClaim"]
            claims.add(source["claimName"])
            if needs[pod.name] and (mount.get("readOnly") or source.get("readOnly")):
                yield f"{pod.name}: cannot write to {url}"
            if not needs[pod.name] and not mount.get("readOnly"):
                yield f"{pod.name}: could write to {url}, and only reads"
    if len(claims) > 1:
        yield f"{url}: several volumes, {sorted(claims)}"


def _environment(pod: Pod) -> set[str]:
    return {variable["name"] for variable in pod.main.get("env", [])}


def _reaches_https(manifests: Manifests, pod: Pod) -> bool:
    policies: list[Object] = [item["spec"] for item in manifests.of_kind("NetworkPolicy")]
    rules = [rule for spec in policies if selects(spec["podSelector"], pod.labels) for rule in spec.get("egress", [])]
    return any({"port": HTTPS} in rule.get("ports", []) and _leads_out(rule) for rule in rules)


def _leads_out(rule: Object) -> bool:
    return any("ipBlock" in peer for peer in rule.get("to", [{"ipBlock": "any"}]))


CHECKS = (artifacts,)
