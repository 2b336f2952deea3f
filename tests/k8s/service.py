"""The objects against our own program: configuration, Serve schema, where replicas fit, ports, shutdown times."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

from helios_services.config import ConfigError, DeploymentConfig, ServiceConfig, load_config
from helios_services.deployments.app import MAX_CONSTRUCTOR_RETRIES, BuildArgs
from helios_services.deployments.ranks.placement import ranks
from helios_services.deployments.serving import SHARED_GPU
from helios_services.gateway.grpc.door import LIVENESS
from k8s.build import Object
from k8s.manifests import COMPONENT, Manifests, Pod, quantity

WEIGHTS_BYTES = 28.6e9
SLOW_VOLUME_BYTES_PER_S = 60e6
MARGIN_S = 5
OF_THE_STORE = ("gateway", "ray-cpu")
"""Pods that are told where the job store is."""
BIG_ENOUGH = {"H100", "H200"}
"""GPUs that hold the denoiser as the manifests set it up."""


def gateway_config(manifests: Manifests) -> ServiceConfig:
    """As a gateway loads it. Raises ConfigError."""
    return _config_in(manifests, manifests.pod("gateway").main, "gateway")


def ray_config(manifests: Manifests) -> ServiceConfig:
    """As a dispatcher loads it. Raises ConfigError."""
    return _config_in(manifests, manifests.pod("ray-cpu").main, "ray")


def _config_in(manifests: Manifests, container: Object, whose: str) -> ServiceConfig:
    given = {name: value for name, value in manifests.environment(container).items() if name.startswith("HELIOS_")}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "helios.yaml"
        path.write_text(manifests.config_text(whose))
        return load_config(environ={**given, "HELIOS_CONFIG": str(path)})


def configuration(manifests: Manifests) -> Iterator[str]:
    """Our loader takes each pod's file with each container's HELIOS_* variables; build() would have what it needs."""
    for pod in manifests.pods:
        whose = "gateway" if pod.labels[COMPONENT] == "gateway" else "ray"
        for container in pod.containers if whose == "gateway" or pod.group is not None else []:
            try:
                config = _config_in(manifests, container, whose)
            except ConfigError as error:
                yield f"{pod.name}/{container['name']}: {error}"
                return
            knows = bool(config.redis.url)
            if knows != (container is pod.main and pod.labels[COMPONENT] in OF_THE_STORE):
                yield f"{pod.name}/{container['name']}: {'knows' if knows else 'does not know'} the job store"
    config = ray_config(manifests)
    for pod in _gpu_pods(manifests):
        folders = {mount["name"]: mount["mountPath"] for mount in pod.main["volumeMounts"]}
        if not config.model.checkpoint.startswith(folders.get("models", "-") + "/"):
            yield f"{pod.name}: {config.model.checkpoint} is not in its weights volume"


def agreement(manifests: Manifests) -> Iterator[str]:
    """Gateways and the Ray cluster mean the same model, jobs and files."""
    gateway, ray = gateway_config(manifests), ray_config(manifests)
    for name in ("model", "redis", "jobs", "media", "tracing", "artifact_url"):
        if getattr(gateway, name) != getattr(ray, name):
            yield f"{name}: gateway.yaml and ray.yaml differ"


def serve(manifests: Manifests) -> Iterator[str]:
    """Serve's own schema takes the RayService's configuration; import path and arguments are ours."""
    try:
        deploy = ServeDeploySchema.model_validate(manifests.serve_config())
    except ValueError as error:
        yield f"serveConfigV2: {error}"
        return
    known = {*ServeDeploySchema.model_fields, *ServeApplicationSchema.model_fields}  # Serve ignores other names
    for tree in (manifests.serve_config(), *manifests.serve_config()["applications"]):
        yield from (f"serveConfigV2: {name} is unknown to Serve" for name in set(tree) - known)
    (application,) = deploy.applications
    module, _, function = application.import_path.partition(":")
    if (module, function) != ("helios_services.deployments.app", "build"):
        yield f"serveConfigV2: {application.import_path} is not our application"
    if str(deploy.proxy_location.value if deploy.proxy_location else "") != "HeadOnly" or not application.route_prefix:
        yield "serveConfigV2: the head's proxy is never healthy, and KubeRay never calls the service ready"
    args = BuildArgs.model_validate(application.args)
    head = manifests.environment(manifests.pod("ray-head").main)
    if args.config != head["HELIOS_CONFIG"]:
        yield f"serveConfigV2: {args.config} is not the mounted configuration"
    if deploy.http_options.port not in _ports(manifests.pod("ray-head")).values():
        yield "serveConfigV2: the head does not declare the proxy's port"
    if int(head.get("RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT") or 0) < MAX_CONSTRUCTOR_RETRIES:
        yield "head: Serve gives a deployment up whose replicas could not start for a while"
    version = manifests.ray["spec"]["rayClusterConfig"]["rayVersion"]
    if f"\nray=={version} " not in (Path(__file__).parents[2] / "docker/worker.lock").read_text():
        yield f"rayVersion {version} is not the image's"


def ports(manifests: Manifests) -> Iterator[str]:
    """The configuration listens where the objects say, on all interfaces; probes and scalers ask for what exists."""
    config, gateway, cpu = ray_config(manifests), manifests.pod("gateway"), manifests.pod("ray-cpu")
    options = gateway_config(manifests).gateway
    wanted = {
        "grpc": options.port,
        "http": options.http_port,
        "metrics": options.metrics_port,
        "health": options.health_port,
    }
    if _ports(gateway) != wanted:
        yield f"gateway: ports {_ports(gateway)}, the configuration says {wanted}"
    if _ports(cpu).get("metrics") != config.dispatcher.metrics_port:
        yield f"ray-cpu: metrics on {_ports(cpu)}, the configuration says {config.dispatcher.metrics_port}"
    for host in (options.host, options.metrics_host, config.dispatcher.metrics_host):
        if host != "0.0.0.0":
            yield f"configuration: {host} cannot be reached from other pods"
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = gateway.main[name].get("grpc", {})
        if probe.get("port") != options.health_port:  # the API's port may have TLS, and is busy under load
            yield f"gateway: {name} asks port {probe.get('port')}"
        if probe.get("service") != (None if name == "readinessProbe" else LIVENESS):
            yield f"gateway: {name} asks for {probe.get('service')}: only readiness may depend on Redis"
    if sum(pod.labels[COMPONENT] == "ray-cpu" for pod in manifests.pods) and config.dispatcher.num_cpus < 1:
        yield "dispatcher: two on one pod would share the metrics port"


def placement(manifests: Manifests) -> Iterator[str]:
    """Replicas at their minimum fit into the pods that always run, at their maximum into those that may."""
    config = ray_config(manifests)
    scales = bool(manifests.ray["spec"]["rayClusterConfig"].get("enableInTreeAutoscaling"))
    if manifests.pod("ray-head").group["rayStartParams"].get("num-cpus") != "0":  # type: ignore[index]
        yield "head: takes replicas"
    for pod in manifests.pods:
        if pod.group is None or "groupName" not in pod.group:
            continue
        group, params = pod.group, pod.group["rayStartParams"]
        if not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
            yield f"{pod.name}: replicas outside their bounds"
        if float(params["num-cpus"]) > quantity(pod.main["resources"]["limits"]["cpu"]):
            yield f"{pod.name}: Ray believes in more CPUs than the limit gives"
        gpus = pod.main["resources"]["limits"].get("nvidia.com/gpu", 0)
        if float(params.get("num-gpus", 0)) != gpus:
            yield f"{pod.name}: Ray believes in {params.get('num-gpus')} GPUs, the pod has {gpus}"
        for bound, pods in (("min", group["minReplicas"]), ("max", group["maxReplicas" if scales else "replicas"])):
            for what, field in (("num_cpus", "num_cpus"), ("num_gpus", "gpu_share")):
                wanted = sum(
                    getattr(d, field) * ranks(d) * (d.autoscaling.least if bound == "min" else d.autoscaling.most)
                    for d in placed(config, pod)
                )
                if wanted > float(params.get(what.replace("_", "-"), 0)) * pods + 1e-9:
                    yield f"{pod.name}: {bound} replicas want {wanted} {what}, {pods} pods have less"
        for deployment in placed(config, pod):
            if deployment.gpu_share * ranks(deployment) > gpus:
                yield f"{pod.name}: {ranks(deployment)} ranks are placed on one node, a pod has {gpus} GPUs"
    homes = [name for pod in manifests.pods if pod.group for name in map(id, placed(config, pod))]
    for name, deployment in _deployments(config).items():
        if homes.count(id(deployment)) != 1:
            yield f"{name}: {homes.count(id(deployment))} groups take it"
    if config.denoiser.autoscaling.most > 1 and config.denoiser.max_ongoing_requests > 1:
        yield "denoiser: calls wait at one replica while another is idle"
    slots = config.dispatcher.concurrent_jobs * config.dispatcher.autoscaling.most
    denoisers = config.denoiser.autoscaling.most
    if slots < denoisers:
        yield f"dispatcher: {slots} jobs at a time never keep {denoisers} denoisers busy"


def _deployments(config: ServiceConfig) -> dict[str, DeploymentConfig]:
    names = ("dispatcher", "text_encoder", "denoiser", "decoder")
    return {name: getattr(config, name) for name in names}


def placed(config: ServiceConfig, pod: Pod) -> list[DeploymentConfig]:
    """The deployments whose replicas run in the pod: those that ask for a resource which its group offers."""
    if pod.group is None or "groupName" not in pod.group:
        return []
    return [deployment for deployment in _deployments(config).values() if deployment.node_resource in _offered(pod)]


def _offered(pod: Pod) -> set[str]:
    assert pod.group is not None
    return set(json.loads(json.loads(pod.group["rayStartParams"].get("resources", '"{}"'))))


def shutdown(manifests: Manifests) -> Iterator[str]:
    """Grace periods hold what happens in them, so that work ends at a chunk boundary and not with SIGKILL."""
    config, longest = ray_config(manifests), 0
    gateway = manifests.pod("gateway")
    withdrawn = gateway.main["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = withdrawn + gateway_config(manifests).gateway.drain_s + MARGIN_S
    if gateway.spec["terminationGracePeriodSeconds"] < needed:
        yield f"gateway: the grace period is shorter than preStop and drain, {needed} s"
    for pod in manifests.pods:
        deployments = placed(config, pod)
        if not deployments:
            continue
        *_, script, seconds = pod.main["lifecycle"]["preStop"]["exec"]["command"]
        drain, slowest = int(seconds), max(d.graceful_shutdown_timeout_s for d in deployments)
        longest = max(longest, drain)
        if not script.endswith("/drain-node.sh"):
            yield f"{pod.name}: preStop does not drain"
        if drain < slowest + MARGIN_S:
            yield f"{pod.name}: drains in {drain} s, a replica may take {slowest} s"
        if pod.spec["terminationGracePeriodSeconds"] < drain + MARGIN_S:
            yield f"{pod.name}: killed before its drain ends"
        if "nvidia.com/gpu" in pod.main["resources"]["limits"] and pod.spec["terminationGracePeriodSeconds"] > 25:
            yield f"{pod.name}: longer than the shortest spot notice"
    head = manifests.pod("ray-head")
    waits = head.main["lifecycle"]["preStop"]["sleep"]["seconds"]
    if waits < longest:
        yield "head: goes before the workers have drained"
    if head.spec["terminationGracePeriodSeconds"] < waits + MARGIN_S:
        yield "head: killed before its preStop ends"


def startup(manifests: Manifests) -> Iterator[str]:
    """GPU pods may take as long as 28.6 GB take from a slow volume; weights are waited for before Ray starts."""
    checkpoint = ray_config(manifests).model.checkpoint
    for pod in _gpu_pods(manifests):
        probe = pod.main["startupProbe"]
        allowed = probe["periodSeconds"] * probe["failureThreshold"]
        if allowed < math.ceil(WEIGHTS_BYTES / SLOW_VOLUME_BYTES_PER_S):
            yield f"{pod.name}: {allowed} s are too short for the weights"
        commands = [" ".join(container["command"]) for container in pod.spec.get("initContainers", [])]
        if not any(f"wait-for-weights.sh {checkpoint}" in command for command in commands):
            yield f"{pod.name}: does not wait for the weights"
        if SHARED_GPU not in manifests.environment(pod.main).items():
            yield f"{pod.name}: fragments the memory of a GPU that replicas share"
        if not any(t["key"] == "nvidia.com/gpu" for t in pod.spec.get("tolerations", [])):
            yield f"{pod.name}: does not tolerate GPU nodes"
        required = pod.spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        products = required["nodeSelectorTerms"][0]["matchExpressions"][0]["values"]
        kinds = {re.split(r"[-_]", product)[1] for product in products}
        if "denoiser" in _offered(pod) and not kinds <= BIG_ENOUGH:
            yield f"{pod.name}: the denoiser does not fit {sorted(kinds - BIG_ENOUGH)}"


def _gpu_pods(manifests: Manifests) -> list[Pod]:
    return [pod for pod in manifests.pods if "nvidia.com/gpu" in pod.main["resources"]["limits"]]


def _ports(pod: Pod) -> dict[str, int]:
    return {entry["name"]: entry["containerPort"] for entry in pod.main.get("ports", [])}


CHECKS = (configuration, agreement, serve, ports, placement, shutdown, startup)
