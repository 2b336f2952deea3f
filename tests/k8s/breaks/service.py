"""Breaks of the service's own configuration."""

from k8s import service
from k8s.breaks.edits import Breaks, config, container, env, setting, worker
from k8s.manifests import Manifests


def _setting_of_ray(manifests: Manifests) -> None:
    (source,) = [
        item["data"]
        for item in manifests.of_kind("ConfigMap")
        if item["metadata"]["name"].startswith("helios-ray-config")
    ]
    source["helios.yaml"] = source["helios.yaml"].replace("name: helios-distilled", "name: helios-base")


def _setting_more(manifests: Manifests, name: str, **variables: str) -> None:
    (source,) = [i["data"] for i in manifests.of_kind("ConfigMap") if i["metadata"]["name"].startswith(name)]
    source.update(variables)


BREAKS: Breaks = {
    "an unknown setting": (service.configuration, lambda m: config(m, "drain_s", "drain_seconds")),
    "a variable that is no setting": (
        service.configuration,
        lambda m: env(m, "ray-cpu", name="HELIOS_GATEWAY_PORT", value="tcp://10.0.0.1:50051"),
    ),
    "a decoder that knows the job store": (
        service.configuration,
        lambda m: container(m, "ray-decoder")["envFrom"].append(container(m, "ray-cpu")["envFrom"][1]),
    ),
    "a dispatcher that does not": (service.configuration, lambda m: container(m, "ray-cpu")["envFrom"].pop()),
    "gateways that mean another model": (
        service.agreement,
        _setting_of_ray,
    ),
    "weights mounted elsewhere": (
        service.configuration,
        lambda m: container(m, "ray-denoiser")["volumeMounts"][4].update(mountPath="/weights"),
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
    "a gateway on loopback": (service.ports, lambda m: config(m, "host: 0.0.0.0", "host: 127.0.0.1")),
    "metrics on another port": (service.ports, lambda m: config(m, "9465", "9500")),
    "liveness that depends on Redis": (
        service.ports,
        lambda m: container(m, "gateway")["livenessProbe"]["grpc"].pop("service"),
    ),
    "more replicas than GPUs": (service.placement, lambda m: config(m, "max_replicas: 8", "max_replicas: 20")),
    "calls that wait at a busy replica": (
        service.placement,
        lambda m: config(m, "max_ongoing_requests: 1", "max_ongoing_requests: 4"),
    ),
    "a group that is not there": (
        service.placement,
        lambda m: config(m, "node_resource: denoiser", "node_resource: denoisers"),
    ),
    "a dispatcher anywhere": (service.placement, lambda m: config(m, "  node_resource: dispatcher\n", "")),
    "ranks that no pod has GPUs for": (
        service.placement,
        lambda m: _setting_more(m, "helios-ray-env", HELIOS_DENOISER__PARALLEL__ULYSSES_DEGREE="4"),
    ),
    "GPUs that Ray does not know": (
        service.placement,
        lambda m: worker(m, "decoder")["rayStartParams"].update({"num-gpus": "2"}),
    ),
    "too few dispatchers": (service.placement, lambda m: config(m, "concurrent_jobs: 5", "concurrent_jobs: 1")),
    "a slow chunk and a short grace": (
        service.shutdown,
        lambda m: config(m, "graceful_shutdown_timeout_s: 15", "graceful_shutdown_timeout_s: 60"),
    ),
    "a gateway killed while it drains": (service.shutdown, lambda m: config(m, "drain_s: 20", "drain_s: 60")),
    "a head that goes first": (
        service.shutdown,
        lambda m: container(m, "ray-head")["lifecycle"]["preStop"]["sleep"].update(seconds=5),
    ),
    "no time to load": (
        service.startup,
        lambda m: container(m, "ray-denoiser")["startupProbe"].update(failureThreshold=10),
    ),
    "a GPU's memory in pieces": (
        service.startup,
        lambda m: setting(m, "PYTORCH_ALLOC_CONF", ""),
    ),
    "a deployment that is given up": (
        service.serve,
        lambda m: setting(m, "RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT", "3"),
    ),
    "any GPU node": (
        service.startup,
        lambda m: m.pod("ray-denoiser").spec.update(tolerations=[]),
    ),
    "probes on the port with TLS": (
        service.ports,
        lambda m: container(m, "gateway")["readinessProbe"]["grpc"].update(port=50051),
    ),
}
