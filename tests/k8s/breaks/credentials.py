"""Breaks of who has which password, key and certificate."""

from k8s import credentials
from k8s.breaks.edits import Breaks, config, container, named, projected, setting
from k8s.build import Object
from k8s.manifests import Manifests


def _mount(manifests: Manifests, name: str) -> Object:
    mounts: list[Object] = container(manifests, "gateway")["volumeMounts"]
    return next(mount for mount in mounts if mount["name"] == name)


BREAKS: Breaks = {
    "a job store in the clear": (
        credentials.job_store,
        lambda m: setting(m, "HELIOS_REDIS_URL", "redis://helios-redis:6379/0"),
    ),
    "the default user": (credentials.job_store, lambda m: setting(m, "HELIOS_REDIS__USERNAME", "default")),
    "a password that is not mounted": (credentials.job_store, lambda m: projected(m, "ray-cpu").pop(0)),
    "a head in the clear": (
        credentials.job_store,
        lambda m: m.ray["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"].update(
            redisAddress="redis://helios-gcs-redis:6379"
        ),
    ),
    "a decoder with the store's password": (
        credentials.least,
        lambda m: m.pod("ray-decoder").spec["volumes"].append(m.pod("ray-cpu").volume("redis")),
    ),
    "a decoder that may write to the bucket": (
        credentials.least,
        lambda m: container(m, "ray-decoder").update(env=container(m, "ray-cpu")["env"]),
    ),
    "an API without keys": (
        credentials.gateways,
        lambda m: config(m, "  api_keys_file: /etc/helios-keys/keys.yaml", ""),
    ),
    "keys that are not mounted": (
        credentials.gateways,
        lambda m: m.pod("gateway").volume("api-keys")["secret"]["items"][0].update(path="other.yaml"),
    ),
    "keys for every user": (
        credentials.gateways,
        lambda m: m.pod("gateway").volume("api-keys")["secret"].pop("defaultMode"),
    ),
    "a certificate that is not renewed": (
        credentials.gateways,
        lambda m: _mount(m, "tls").update(subPath="tls.crt"),
    ),
    "a certificate that anyone may replace": (credentials.gateways, lambda m: _mount(m, "tls").pop("readOnly")),
    "TLS that the Service denies": (
        credentials.gateways,
        lambda m: named(m, "Service", "helios-gateway")["spec"]["ports"][0].update(appProtocol="kubernetes.io/h2c"),
    ),
}
