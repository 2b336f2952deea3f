"""The checks notice: each breaks one thing in a copy of the production build and must be complained about."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from k8s import artifacts, credentials, network, policies, redis_servers, references, scaling, schemas, service
from k8s.build import Object, variant
from k8s.manifests import Manifests

Check = Callable[[Manifests], Iterator[str]]
Break = Callable[[Manifests], Any]


def _worker(manifests: Manifests, name: str) -> Object:
    groups = manifests.ray["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    return next(group for group in groups if group["groupName"] == name)


def _container(manifests: Manifests, component: str) -> Object:
    return manifests.pod(component).main


def _object(manifests: Manifests, kind: str, name: str) -> Object:
    found = manifests.get(kind, name)
    assert found is not None
    return found


def _config(manifests: Manifests, old: str, new: str) -> None:
    sources = [item["data"] for item in manifests.of_kind("ConfigMap") if "helios.yaml" in item["data"]]
    assert any(old in source["helios.yaml"] for source in sources)
    for source in sources:
        source["helios.yaml"] = source["helios.yaml"].replace(old, new)


def _setting(manifests: Manifests, name: str, value: str) -> None:
    (source,) = [item["data"] for item in manifests.of_kind("ConfigMap") if name in item["data"]]
    source[name] = value


def _users(manifests: Manifests, old: str, new: str) -> None:
    sources = [item["data"] for item in manifests.of_kind("ConfigMap") if old in item["data"].get("users", "")]
    assert sources
    for source in sources:
        source["users"] = source["users"].replace(old, new)


def _projected(manifests: Manifests, component: str) -> list[Object]:
    sources: list[Object] = manifests.pod(component).volume("redis")["projected"]["sources"]
    return sources


def _redis_conf(manifests: Manifests, old: str, new: str) -> None:
    for item in manifests.of_kind("ConfigMap"):
        if "redis.conf" in item["data"]:
            item["data"]["redis.conf"] = item["data"]["redis.conf"].replace(old, new)


def _mount(manifests: Manifests, name: str) -> Object:
    mounts: list[Object] = _container(manifests, "gateway")["volumeMounts"]
    return next(mount for mount in mounts if mount["name"] == name)


def _hpa(manifests: Manifests) -> Object:
    spec: Object = _object(manifests, "HorizontalPodAutoscaler", "helios-gateway")["spec"]
    return spec


def _env(manifests: Manifests, component: str, **variable: Any) -> None:
    container = _container(manifests, component)
    container["env"] = [*container.get("env", []), variable]


def _setting_more(manifests: Manifests, name: str, **variables: str) -> None:
    (source,) = [i["data"] for i in manifests.of_kind("ConfigMap") if i["metadata"]["name"].startswith(name)]
    source.update(variables)


def _setting_of_ray(manifests: Manifests) -> None:
    (source,) = [
        item["data"]
        for item in manifests.of_kind("ConfigMap")
        if item["metadata"]["name"].startswith("helios-ray-config")
    ]
    source["helios.yaml"] = source["helios.yaml"].replace("name: helios-distilled", "name: helios-base")


def _remove(manifests: Manifests, kind: str, name: str) -> None:
    manifests.objects.remove(_object(manifests, kind, name))


MUTATIONS: dict[str, tuple[Check, Break]] = {
    "a Ray worker as root": (
        policies.hardened,
        lambda m: _worker(m, "denoiser")["template"]["spec"].pop("securityContext"),
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
        lambda m: _container(m, "gateway")["resources"]["limits"].pop("memory"),
    ),
    "image latest": (policies.hardened, lambda m: _container(m, "redis").update(image="redis:latest")),
    "service links": (policies.hardened, lambda m: m.pod("gateway").spec.pop("enableServiceLinks")),
    "no tmp volume": (policies.writable, lambda m: _container(m, "ray-cpu")["volumeMounts"].pop(2)),
    "no readiness": (policies.probed, lambda m: _container(m, "ray-cpu").pop("readinessProbe")),
    "a ConfigMap that is not there": (
        references.volumes,
        lambda m: m.pod("ray-head").volume("config")["configMap"].update(name="helios-config"),
    ),
    "a mount of nothing": (
        references.volumes,
        lambda m: _container(m, "gateway")["volumeMounts"].append({"name": "other", "mountPath": "/o"}),
    ),
    "a misspelt script": (
        references.files,
        lambda m: _container(m, "redis").update(command=["/bin/sh", "/etc/redis/begin.sh"]),
    ),
    "an unknown Secret key": (
        references.secrets,
        lambda m: m.pod("redis").volume("passwords")["secret"]["items"][0].update(key="pass"),
    ),
    "a password written out": (
        references.secrets,
        lambda m: _env(m, "gateway", name="AWS_SECRET_ACCESS_KEY", value="wJalr"),
    ),
    "a password in a URL": (
        references.secrets,
        lambda m: _setting(m, "HELIOS_REDIS_URL", "rediss://helios:secret@helios-redis:6379/0"),
    ),
    "an account that is not there": (
        references.accounts,
        lambda m: m.pod("gateway").spec.update(serviceAccountName="gateway"),
    ),
    "a Service that selects nothing": (
        references.services,
        lambda m: _object(m, "Service", "helios-gateway")["spec"]["selector"].update({"app": "gateway"}),
    ),
    "a Service port that nobody has": (
        references.services,
        lambda m: _object(m, "Service", "helios-redis")["spec"]["ports"][0].update(targetPort="tcp"),
    ),
    "a scaler without target": (references.targets, lambda m: _remove(m, "Deployment", "helios-gateway")),
    "a budget that selects nothing": (
        references.targets,
        lambda m: _object(m, "PodDisruptionBudget", "helios-denoiser")["spec"]["selector"].update(
            matchLabels={"app.kubernetes.io/component": "denoiser"}
        ),
    ),
    "replicas beside a scaler": (
        references.targets,
        lambda m: _object(m, "Deployment", "helios-gateway")["spec"].update(replicas=3),
    ),
    "a policy for nobody": (
        network.resolve,
        lambda m: _object(m, "NetworkPolicy", "ray")["spec"].update(podSelector={"matchLabels": {"runtime": "ray"}}),
    ),
    "a port that is not the pod's": (
        network.resolve,
        lambda m: _object(m, "NetworkPolicy", "redis")["spec"]["ingress"][0].update(ports=[{"port": "grpc"}]),
    ),
    "no default": (network.closed, lambda m: _remove(m, "NetworkPolicy", "default-deny")),
    "an open dashboard": (
        network.closed,
        lambda m: _object(m, "NetworkPolicy", "ray-head")["spec"]["ingress"].append({"ports": [{"port": 8265}]}),
    ),
    "a Redis that leaves the cluster": (
        network.closed,
        lambda m: _object(m, "Service", "helios-redis")["spec"].update(type="LoadBalancer"),
    ),
    "a gateway that cannot reach Redis": (
        network.connected,
        lambda m: _object(m, "NetworkPolicy", "gateway")["spec"].pop("egress"),
    ),
    "metrics that nobody may read": (
        network.connected,
        lambda m: _object(m, "NetworkPolicy", "ray-cpu")["spec"].pop("ingress"),
    ),
    "an unknown setting": (service.configuration, lambda m: _config(m, "drain_s", "drain_seconds")),
    "a variable that is no setting": (
        service.configuration,
        lambda m: _env(m, "ray-cpu", name="HELIOS_GATEWAY_PORT", value="tcp://10.0.0.1:50051"),
    ),
    "a decoder that knows the job store": (
        service.configuration,
        lambda m: _container(m, "ray-decoder")["envFrom"].append(_container(m, "ray-cpu")["envFrom"][1]),
    ),
    "a dispatcher that does not": (service.configuration, lambda m: _container(m, "ray-cpu")["envFrom"].pop()),
    "gateways that mean another model": (
        service.agreement,
        _setting_of_ray,
    ),
    "weights mounted elsewhere": (
        service.configuration,
        lambda m: _container(m, "ray-denoiser")["volumeMounts"][4].update(mountPath="/weights"),
    ),
    "a Serve option that does not exist": (
        service.serve,
        lambda m: m.ray["spec"].update(serveConfigV2=m.ray["spec"]["serveConfigV2"] + "\nproxy: HeadOnly"),
    ),
    "a proxy that is never healthy": (
        service.serve,
        lambda m: m.ray["spec"].update(
            serveConfigV2=m.ray["spec"]["serveConfigV2"].replace("route_prefix: /", "route_prefix: null")
        ),
    ),
    "another import path": (
        service.serve,
        lambda m: m.ray["spec"].update(serveConfigV2=m.ray["spec"]["serveConfigV2"].replace("app:build", "app:app")),
    ),
    "a gateway on loopback": (service.ports, lambda m: _config(m, "host: 0.0.0.0", "host: 127.0.0.1")),
    "metrics on another port": (service.ports, lambda m: _config(m, "9465", "9500")),
    "liveness that depends on Redis": (
        service.ports,
        lambda m: _container(m, "gateway")["livenessProbe"]["grpc"].pop("service"),
    ),
    "more replicas than GPUs": (service.placement, lambda m: _config(m, "max_replicas: 8", "max_replicas: 20")),
    "calls that wait at a busy replica": (
        service.placement,
        lambda m: _config(m, "max_ongoing_requests: 1", "max_ongoing_requests: 4"),
    ),
    "a group that is not there": (
        service.placement,
        lambda m: _config(m, "node_resource: denoiser", "node_resource: denoisers"),
    ),
    "a dispatcher anywhere": (service.placement, lambda m: _config(m, "  node_resource: dispatcher\n", "")),
    "ranks that no pod has GPUs for": (
        service.placement,
        lambda m: _setting_more(m, "helios-ray-env", HELIOS_DENOISER__PARALLEL__ULYSSES_DEGREE="4"),
    ),
    "GPUs that Ray does not know": (
        service.placement,
        lambda m: _worker(m, "decoder")["rayStartParams"].update({"num-gpus": "2"}),
    ),
    "too few dispatchers": (service.placement, lambda m: _config(m, "concurrent_jobs: 5", "concurrent_jobs: 1")),
    "a slow chunk and a short grace": (
        service.shutdown,
        lambda m: _config(m, "graceful_shutdown_timeout_s: 15", "graceful_shutdown_timeout_s: 60"),
    ),
    "a gateway killed while it drains": (service.shutdown, lambda m: _config(m, "drain_s: 20", "drain_s: 60")),
    "a head that goes first": (
        service.shutdown,
        lambda m: _container(m, "ray-head")["lifecycle"]["preStop"]["sleep"].update(seconds=5),
    ),
    "no time to load": (
        service.startup,
        lambda m: _container(m, "ray-denoiser")["startupProbe"].update(failureThreshold=10),
    ),
    "a GPU's memory in pieces": (
        service.startup,
        lambda m: _setting(m, "PYTORCH_ALLOC_CONF", ""),
    ),
    "a deployment that is given up": (
        service.serve,
        lambda m: _setting(m, "RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT", "3"),
    ),
    "any GPU node": (
        service.startup,
        lambda m: m.pod("ray-denoiser").spec.update(tolerations=[]),
    ),
    "a Redis that evicts": (redis_servers.settings, lambda m: _redis_conf(m, "noeviction", "allkeys-lru")),
    "a Redis that forgets": (redis_servers.settings, lambda m: _redis_conf(m, "appendonly yes", "appendonly no")),
    "a Redis that fills its pod": (
        redis_servers.settings,
        lambda m: _redis_conf(m, "maxmemory 24gb", "maxmemory 31gb"),
    ),
    "a Redis without TLS": (redis_servers.settings, lambda m: _redis_conf(m, "port 0", "port 6379")),
    "a Redis for anyone": (redis_servers.settings, lambda m: _redis_conf(m, "user default off", "user default on")),
    "a Redis with holes": (
        redis_servers.settings,
        lambda m: _container(m, "redis").update(image="redis:7.2.7-bookworm"),
    ),
    "more rights than documented": (redis_servers.users, lambda m: _users(m, "+zscore", "+zscore +flushall")),
    "an exporter that may do everything": (
        redis_servers.users,
        lambda m: _users(m, "exporter resetkeys", "exporter ~*"),
    ),
    "a user without a password": (
        redis_servers.users,
        lambda m: m.pod("redis").volume("passwords")["secret"]["items"].pop(),
    ),
    "an admin's password in a gateway": (
        redis_servers.users,
        lambda m: _projected(m, "gateway")[0]["secret"]["items"].append({"key": "admin-password", "path": "admin"}),
    ),
    "a job store in the clear": (
        credentials.job_store,
        lambda m: _setting(m, "HELIOS_REDIS_URL", "redis://helios-redis:6379/0"),
    ),
    "the default user": (credentials.job_store, lambda m: _setting(m, "HELIOS_REDIS__USERNAME", "default")),
    "a password that is not mounted": (credentials.job_store, lambda m: _projected(m, "ray-cpu").pop(0)),
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
        lambda m: _container(m, "ray-decoder").update(env=_container(m, "ray-cpu")["env"]),
    ),
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
    "Redis for a namespace": (
        network.narrow,
        lambda m: _object(m, "NetworkPolicy", "redis")["spec"]["ingress"][0]["from"].append(
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}}
        ),
    ),
    "Redis for decoders": (
        network.narrow,
        lambda m: _object(m, "NetworkPolicy", "redis")["spec"]["ingress"][0]["from"].append(
            {"podSelector": {"matchLabels": {"app.kubernetes.io/component": "ray-decoder"}}}
        ),
    ),
    "Redis on any port": (
        network.narrow,
        lambda m: _object(m, "NetworkPolicy", "redis")["spec"]["ingress"][0].pop("ports"),
    ),
    "a way out to anyone": (
        network.narrow,
        lambda m: _object(m, "NetworkPolicy", "gateway")["spec"]["egress"].append({"ports": [{"port": 443}]}),
    ),
    "probes on the port with TLS": (
        service.ports,
        lambda m: _container(m, "gateway")["readinessProbe"]["grpc"].update(port=50051),
    ),
    "an API without keys": (
        credentials.gateways,
        lambda m: _config(m, "  api_keys_file: /etc/helios-keys/keys.yaml", ""),
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
        lambda m: _object(m, "Service", "helios-gateway")["spec"]["ports"][0].update(appProtocol="kubernetes.io/h2c"),
    ),
    "a Secret that nobody makes": (
        references.secrets,
        lambda m: m.pod("gateway").volume("tls")["secret"].update(secretName="gateway-certificate"),
    ),
    "a key of a Secret that it has not": (
        references.secrets,
        lambda m: m.pod("gateway").volume("tls")["secret"]["items"][0].update(key="cert.pem"),
    ),
    "spans that go nowhere": (network.traced, lambda m: _remove(m, "NetworkPolicy", "tracing")),
    "a collector on another port": (network.traced, lambda m: _config(m, "svc:4317", "svc:4318")),
    "a collector outside": (network.traced, lambda m: _config(m, "otel-collector.monitoring.svc", "otel.example.org")),
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
        lambda m: _config(m, "max_concurrent_rpcs: 2000", "max_concurrent_rpcs: 1200"),
    ),
    "a key that is kept below the target": (
        scaling.metrics,
        lambda m: _config(m, "max_concurrent_rpcs: 2000", "max_concurrent_rpcs_per_key: 1000"),
    ),
    "a hasty scaler": (
        scaling.patience,
        lambda m: _hpa(m)["behavior"]["scaleDown"].update(stabilizationWindowSeconds=60),
    ),
    "a scaler that takes half": (
        scaling.patience,
        lambda m: _hpa(m)["behavior"]["scaleDown"]["policies"][0].update(type="Percent", value=50),
    ),
    "a decoder without the bucket's keys": (
        artifacts.artifacts,
        lambda m: _container(m, "ray-decoder")["env"].pop(),
    ),
    "a decoder that may not reach the bucket": (
        artifacts.artifacts,
        lambda m: _object(m, "NetworkPolicy", "bucket")["spec"]["podSelector"]["matchExpressions"][0]["values"].remove(
            "ray-decoder"
        ),
    ),
    "a bucket's keys for everybody": (
        artifacts.artifacts,
        lambda m: _env(m, "ray-denoiser", name="AWS_ACCESS_KEY_ID", value=""),
    ),
    "an unknown field": (
        schemas.built_in,
        lambda m: _object(m, "HorizontalPodAutoscaler", "helios-gateway")["spec"].update(maxReplica=9),
    ),
    "an unknown field in a nested pod": (
        schemas.built_in,
        lambda m: _container(m, "ray-denoiser")["livenessProbe"].update(tries=3),
    ),
    "a wrong type": (
        schemas.built_in,
        lambda m: _container(m, "gateway")["ports"][0].update(containerPort="50051"),
    ),
}
CUSTOM: dict[str, Break] = {
    "an unknown field": lambda m: m.ray["spec"].update(serveConfig="x"),
    "an unknown field of a group": lambda m: _worker(m, "cpu").update(replica=1),
    "a wrong type": lambda m: m.ray["spec"].update(rayClusterDeletionDelaySeconds="60s"),
    "a group without bounds": lambda m: _worker(m, "cpu").pop("maxReplicas"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_break_is_noticed(name: str, production: Manifests) -> None:
    check, breaks = MUTATIONS[name]
    assert list(check(production)) == []
    broken = Manifests(copy.deepcopy(production.objects))
    breaks(broken)
    assert list(check(broken)) != []


@pytest.mark.skipif(schemas.crd_folder() is None, reason="no CRDs beside the checkout; K8S_CRDS names their folder")
@pytest.mark.parametrize("name", CUSTOM)
def test_a_break_of_a_custom_resource_is_noticed(name: str, production: Manifests) -> None:
    CUSTOM[name](production)
    assert list(schemas.custom(production)) != []


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


def _artifacts(manifests: Manifests, component: str) -> Object:
    mounts: list[Object] = _container(manifests, component)["volumeMounts"]
    return next(mount for mount in mounts if mount["name"] == "artifacts")


@pytest.mark.parametrize("name", VOLUME)
def test_a_break_of_the_shared_volume_is_noticed(name: str, scratch: Path) -> None:
    manifests = Manifests(variant("single-gpu", scratch))  # the decoder runs beside the denoiser
    assert list(artifacts.artifacts(manifests)) == []
    VOLUME[name](manifests)
    assert list(artifacts.artifacts(manifests)) != []
