"""Breaks of what one object says of another."""

from k8s import references
from k8s.breaks.edits import Breaks, container, env, named, remove, setting

BREAKS: Breaks = {
    "a ConfigMap that is not there": (
        references.volumes,
        lambda m: m.pod("ray-head").volume("config")["configMap"].update(name="helios-config"),
    ),
    "a mount of nothing": (
        references.volumes,
        lambda m: container(m, "gateway")["volumeMounts"].append({"name": "other", "mountPath": "/o"}),
    ),
    "a misspelt script": (
        references.files,
        lambda m: container(m, "redis").update(command=["/bin/sh", "/etc/redis/begin.sh"]),
    ),
    "an unknown Secret key": (
        references.secrets,
        lambda m: m.pod("redis").volume("passwords")["secret"]["items"][0].update(key="pass"),
    ),
    "a password written out": (
        references.secrets,
        lambda m: env(m, "gateway", name="AWS_SECRET_ACCESS_KEY", value="wJalr"),
    ),
    "a password in a URL": (
        references.secrets,
        lambda m: setting(m, "HELIOS_REDIS_URL", "rediss://helios:secret@helios-redis:6379/0"),
    ),
    "an account that is not there": (
        references.accounts,
        lambda m: m.pod("gateway").spec.update(serviceAccountName="gateway"),
    ),
    "a Service that selects nothing": (
        references.services,
        lambda m: named(m, "Service", "helios-gateway")["spec"]["selector"].update({"app": "gateway"}),
    ),
    "a Service port that nobody has": (
        references.services,
        lambda m: named(m, "Service", "helios-redis")["spec"]["ports"][0].update(targetPort="tcp"),
    ),
    "a scaler without target": (references.targets, lambda m: remove(m, "Deployment", "helios-gateway")),
    "a budget that selects nothing": (
        references.targets,
        lambda m: named(m, "PodDisruptionBudget", "helios-denoiser")["spec"]["selector"].update(
            matchLabels={"app.kubernetes.io/component": "denoiser"}
        ),
    ),
    "replicas beside a scaler": (
        references.targets,
        lambda m: named(m, "Deployment", "helios-gateway")["spec"].update(replicas=3),
    ),
    "a Secret that nobody makes": (
        references.secrets,
        lambda m: m.pod("gateway").volume("tls")["secret"].update(secretName="gateway-certificate"),
    ),
    "a key of a Secret that it has not": (
        references.secrets,
        lambda m: m.pod("gateway").volume("tls")["secret"]["items"][0].update(key="cert.pem"),
    ),
}
