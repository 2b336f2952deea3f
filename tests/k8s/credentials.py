"""Who has which secret: files of mounted Secrets, for the pods that need them and no others."""

from collections.abc import Iterator

from k8s.build import Object
from k8s.manifests import COMPONENT, Manifests, Pod
from k8s.redis_servers import read_by
from k8s.service import OF_THE_STORE, gateway_config, ray_config

OF_GATEWAYS = ("api_keys_file", "tls_certificate_file", "tls_key_file", "tls_client_ca_file")
OF_REDIS = ("password_file", "tls_ca_file")
FOR_NOBODY_ELSE = {
    ("helios-redis", "password"): {*OF_THE_STORE, "redis"},
    ("helios-redis", "exporter-password"): {"redis", "redis-exporter"},
    ("helios-redis-tls", "tls.key"): {"redis", "gcs-redis"},
    ("helios-gcs-redis", "password"): {"gcs-redis"},
    ("helios-artifacts", "secret-access-key"): {"gateway", "ray-cpu"},
    ("helios-artifacts-read", "secret-access-key"): {"ray-decoder", "ray-denoiser"},
    ("helios-gateway-tls", "tls.key"): {"gateway"},
    ("helios-api-keys", "keys.yaml"): {"gateway"},
}
"""The secrets, and the components that may have them. (KubeRay hands the head its Redis' password by itself.)"""


def gateways(manifests: Manifests) -> Iterator[str]:
    """The gateway asks for keys, and every file that its configuration names is a Secret's."""
    pod, config = manifests.pod("gateway"), gateway_config(manifests)
    if not config.gateway.api_keys_file:
        yield "gateway: anyone may call"
    for name, path in ((name, getattr(config.gateway, name)) for name in OF_GATEWAYS):
        if path:
            yield from (f"gateway: {name}: {complaint}" for complaint in secret_file(pod, path))
    (service,) = (item for item in manifests.of_kind("Service") if item["metadata"]["name"] == "helios-gateway")
    speaks = {"grpc": "kubernetes.io/h2c", "http": "http"}
    if config.gateway.tls_certificate_file:
        speaks = dict.fromkeys(speaks, "https")
    said = {port["name"]: port["appProtocol"] for port in service["spec"]["ports"]}
    if said != speaks:
        yield f"Service helios-gateway: must say what the gateway speaks, {speaks}, says {said}"


def job_store(manifests: Manifests) -> Iterator[str]:
    """Redis is reached by name, password file and TLS: nothing of it stands in a URL or in the environment."""
    for config, component in ((gateway_config(manifests), "gateway"), (ray_config(manifests), "ray-cpu")):
        options, pod = config.redis, manifests.pod(component)
        if not options.url.startswith("rediss://") or "@" in options.url:
            yield f"{pod.name}: {options.url} is not encrypted, or names a user"
        if options.username in ("", "default"):
            yield f"{pod.name}: is not the store's user"
        for name in OF_REDIS:
            yield from (f"{pod.name}: redis.{name}: {each}" for each in secret_file(pod, getattr(options, name)))
    head = manifests.ray["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    if not head["redisAddress"].startswith("rediss://") or head.get("redisUsername", {}).get("value") != "ray":
        yield "ray-head: its Redis is not reached by name and over TLS"
    authority = manifests.environment(manifests.pod("ray-head").main).get("RAY_REDIS_CA_CERT", "")
    yield from (f"ray-head: RAY_REDIS_CA_CERT: {each}" for each in secret_file(manifests.pod("ray-head"), authority))


def least(manifests: Manifests) -> Iterator[str]:
    """No pod has a secret that it does not need."""
    for pod in manifests.pods:
        for secret in sorted(read_by(pod)):
            allowed = FOR_NOBODY_ELSE.get(secret)
            if allowed is not None and pod.labels[COMPONENT] not in allowed:
                yield f"{pod.name}: has {secret}"


def secret_file(pod: Pod, path: str) -> Iterator[str]:
    """Complaints about a file that should be a mounted Secret's, follow its changes and be closed to others."""
    folder, _, name = path.rpartition("/")
    mount = next((mount for mount in pod.main["volumeMounts"] if mount["mountPath"] == folder), None)
    volume: Object = pod.volume(mount["name"]) if mount else {}
    whole = volume.get("secret") or volume.get("projected")
    parts = [part["secret"] for part in whole["sources"]] if whole and "sources" in whole else [whole or {}]
    files = {entry["path"] for part in parts for entry in part.get("items", [])}
    if mount is None or whole is None or name not in files:
        yield f"{path} is in no mounted Secret"
        return
    if not mount.get("readOnly"):
        yield f"{path} is writable"
    if "subPath" in mount:
        yield f"{path} would not follow a change of its Secret"
    if whole.get("defaultMode", 0o644) & 0o007:
        yield f"{path} can be read by every user of the pod"


CHECKS = (gateways, job_store, least)
