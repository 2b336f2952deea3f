"""The objects against our own program: configuration, Serve schema, where replicas fit, ports, shutdown times."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

from helios_services.config import ConfigError, DeploymentConfig, ServiceConfig, load_config
from helios_services.deployments.app import MAX_CONSTRUCTOR_RETRIES, BuildArgs
from helios_services.deployments.serving import SHARED_GPU
from helios_services.gateway.grpc.door import LIVENESS
from helios_services.jobs.keys import Keys
from helios_services.jobs.records import Priority
from k8s.manifests import COMPONENT, Manifests, Pod, quantity

WEIGHTS_BYTES = 28.6e9
SLOW_VOLUME_BYTES_PER_S = 60e6
MARGIN_S = 5


def config_of(manifests: Manifests, environ: dict[str, str] | None = None) -> ServiceConfig:
    """The configuration as a process in a pod loads it. Raises ConfigError."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "helios.yaml"
        path.write_text(manifests.config_text())
        return load_config(
            environ={"HELIOS_REDIS_URL": "redis://r:6379", **(environ or {}), "HELIOS_CONFIG": str(path)}
        )


def configuration(manifests: Manifests) -> Iterator[str]:
    """Our loader takes the file with each container's HELIOS_* variables; build() would have what it needs."""
    for pod in manifests.pods:
        for container in pod.containers:
            environ = {v["name"]: v.get("value", "redis://r:6379") for v in container.get("env", [])}
            try:
                config = config_of(manifests, {k: v for k, v in environ.items() if k.startswith("HELIOS_")})
            except ConfigError as error:
                yield f"{pod.name}/{container['name']}: {error}"
                return
            if "HELIOS_CONFIG" in environ and "HELIOS_REDIS_URL" not in environ:
                yield f"{pod.name}/{container['name']}: does not know Redis"
    for pod in _gpu_pods(manifests):
        folders = {mount["name"]: mount["mountPath"] for mount in pod.main["volumeMounts"]}
        if not config.model.checkpoint.startswith(folders.get("models", "-") + "/"):
            yield f"{pod.name}: {config.model.checkpoint} is not in its weights volume"


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
    head = {variable["name"]: variable.get("value") for variable in manifests.pod("ray-head").main["env"]}
    if args.config != head["HELIOS_CONFIG"]:
        yield f"serveConfigV2: {args.config} is not the mounted configuration"
    if deploy.http_options.port not in _ports(manifests.pod("ray-head")).values():
        yield "serveConfigV2: the head does not declare the proxy's port"
    if int(head.get("RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT") or 0) < MAX_CONSTRUCTOR_RETRIES:
        yield "head: Serve gives a deployment up whose replicas could not start for a while"
    version = manifests.ray["spec"]["rayClusterConfig"]["rayVersion"]
    if version not in (Path(__file__).parents[2] / "docker/worker.Dockerfile").read_text():
        yield f"rayVersion {version} is not the image's"


def ports(manifests: Manifests) -> Iterator[str]:
    """The configuration listens where the objects say, on all interfaces; probes and scalers ask for what exists."""
    config, gateway, cpu = config_of(manifests), manifests.pod("gateway"), manifests.pod("ray-cpu")
    options = config.gateway
    wanted = {"grpc": options.port, "metrics": options.metrics_port, "health": options.health_port}
    if _ports(gateway) != wanted:
        yield f"gateway: ports {_ports(gateway)}, the configuration says {wanted}"
    if _ports(cpu).get("metrics") != config.dispatcher.metrics_port:
        yield f"ray-cpu: metrics on {_ports(cpu)}, the configuration says {config.dispatcher.metrics_port}"
    for host in (config.gateway.host, config.gateway.metrics_host, config.dispatcher.metrics_host):
        if host != "0.0.0.0":
            yield f"configuration: {host} cannot be reached from other pods"
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = gateway.main[name].get("grpc", {})
        if probe.get("port") != config.gateway.health_port:  # the API's port may have TLS, and is busy under load
            yield f"gateway: {name} asks port {probe.get('port')}"
        if probe.get("service") != (None if name == "readinessProbe" else LIVENESS):
            yield f"gateway: {name} asks for {probe.get('service')}: only readiness may depend on Redis"
    if sum(pod.labels[COMPONENT] == "ray-cpu" for pod in manifests.pods) and config.dispatcher.num_cpus < 1:
        yield "dispatcher: two on one pod would share the metrics port"
    keys = Keys(config.redis.namespace)
    queues = {keys.of("queue", config.model.name, priority) for priority in Priority}
    for item in manifests.of_kind("ScaledObject"):
        asked = {t["metadata"]["listName"] for t in item["spec"]["triggers"] if t["type"] == "redis"}
        if asked != queues:
            yield f"ScaledObject: asks for {sorted(asked ^ queues)}"


def placement(manifests: Manifests) -> Iterator[str]:
    """Replicas at their minimum fit into the pods that always run, at their maximum into those that may."""
    config = config_of(manifests)
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
            for what in ("num_cpus", "num_gpus"):
                wanted = sum(
                    getattr(d, what) * getattr(d.autoscaling, f"{bound}_replicas") for d in placed(config, pod)
                )
                if wanted > float(params.get(what.replace("_", "-"), 0)) * pods + 1e-9:
                    yield f"{pod.name}: {bound} replicas want {wanted} {what}, {pods} pods have less"
    homes = [name for pod in manifests.pods if pod.group for name in map(id, placed(config, pod))]
    for name, deployment in _deployments(config).items():
        if homes.count(id(deployment)) != 1:
            yield f"{name}: {homes.count(id(deployment))} groups take it"
    if config.denoiser.autoscaling.max_replicas > 1 and config.denoiser.max_ongoing_requests > 1:
        yield "denoiser: calls wait at one replica while another is idle"
    slots = config.dispatcher.concurrent_jobs * config.dispatcher.autoscaling.max_replicas
    denoisers = config.denoiser.autoscaling.max_replicas
    if slots < denoisers:
        yield f"dispatcher: {slots} jobs at a time never keep {denoisers} denoisers busy"


def _deployments(config: ServiceConfig) -> dict[str, DeploymentConfig]:
    names = ("dispatcher", "text_encoder", "denoiser", "decoder")
    return {name: getattr(config, name) for name in names}


def placed(config: ServiceConfig, pod: Pod) -> list[DeploymentConfig]:
    """The deployments whose replicas run in the pod, by accelerator type; those without one run in the group cpu."""
    if pod.group is None or "groupName" not in pod.group:
        return []
    types = re.findall(r"accelerator_type:(\w+)", pod.group["rayStartParams"].get("resources", ""))
    wanted = types[0] if types else ""
    return [deployment for deployment in _deployments(config).values() if deployment.accelerator_type == wanted]


def shutdown(manifests: Manifests) -> Iterator[str]:
    """Grace periods hold what happens in them, so that work ends at a chunk boundary and not with SIGKILL."""
    config, longest = config_of(manifests), 0
    gateway = manifests.pod("gateway")
    needed = gateway.main["lifecycle"]["preStop"]["sleep"]["seconds"] + config.gateway.drain_s + MARGIN_S
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
    for pod in _gpu_pods(manifests):
        probe = pod.main["startupProbe"]
        allowed = probe["periodSeconds"] * probe["failureThreshold"]
        if allowed < math.ceil(WEIGHTS_BYTES / SLOW_VOLUME_BYTES_PER_S):
            yield f"{pod.name}: {allowed} s are too short for the weights"
        commands = [" ".join(container["command"]) for container in pod.spec.get("initContainers", [])]
        if not any(f"wait-for-weights.sh {config_of(manifests).model.checkpoint}" in command for command in commands):
            yield f"{pod.name}: does not wait for the weights"
        if SHARED_GPU not in [(variable["name"], variable.get("value")) for variable in pod.main["env"]]:
            yield f"{pod.name}: fragments the memory of a GPU that replicas share"
        if not any(t["key"] == "nvidia.com/gpu" for t in pod.spec.get("tolerations", [])):
            yield f"{pod.name}: does not tolerate GPU nodes"
        required = pod.spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        (type_,) = re.findall(r"accelerator_type:(\w+)", pod.group["rayStartParams"]["resources"])  # type: ignore[index]
        products = required["nodeSelectorTerms"][0]["matchExpressions"][0]["values"]
        if not all(type_ in product for product in products):
            yield f"{pod.name}: {products} are not all {type_}"


def redis(manifests: Manifests) -> Iterator[str]:
    """Append-only, never evicting, and with memory left for rewriting the append-only file."""
    for item in manifests.of_kind("StatefulSet"):
        name = item["metadata"]["name"]
        pod = next(pod for pod in manifests.pods if pod.name == f"StatefulSet/{name}")
        source = manifests.get("ConfigMap", pod.volume("conf")["configMap"]["name"])
        if source is None:
            yield f"{name}: no configuration"
            continue
        lines = [line.split(maxsplit=1) for line in source["data"]["redis.conf"].splitlines() if line]
        settings = {line[0]: line[1] for line in lines if line[0] != "#"}
        wanted = {"appendonly": "yes", "maxmemory-policy": "noeviction", "dir": "/data"}
        for key, value in wanted.items():
            if settings.get(key) != value:
                yield f"{name}: {key} is {settings.get(key)}, must be {value}"
        maxmemory = quantity(settings["maxmemory"].replace("gb", "Gi").replace("mb", "Mi"))
        if maxmemory > 0.75 * quantity(pod.main["resources"]["limits"]["memory"]):
            yield f"{name}: maxmemory leaves no room for a rewrite"


def credentials(manifests: Manifests) -> Iterator[str]:
    """The gateway asks for keys, and every file that its configuration names is a Secret's, mounted for it alone."""
    pod = manifests.pod("gateway")
    environ = {v["name"]: v["value"] for v in pod.main["env"] if "value" in v and v["name"].startswith("HELIOS_")}
    options = config_of(manifests, environ).gateway
    if not options.api_keys_file:
        yield "gateway: anyone may call"
    for name in ("api_keys_file", "tls_certificate_file", "tls_key_file", "tls_client_ca_file"):
        if path := getattr(options, name):
            yield from (f"gateway: {name}: {complaint}" for complaint in _secret_file(pod, path))
    (service,) = (item for item in manifests.of_kind("Service") if item["metadata"]["name"] == "helios-gateway")
    wanted = "https" if options.tls_certificate_file else "kubernetes.io/h2c"
    if service["spec"]["ports"][0]["appProtocol"] != wanted:
        yield f"Service helios-gateway: must say that the gateway speaks {wanted}"


def _secret_file(pod: Pod, path: str) -> Iterator[str]:
    folder, _, name = path.rpartition("/")
    mount = next((mount for mount in pod.main["volumeMounts"] if mount["mountPath"] == folder), None)
    source = pod.volume(mount["name"]).get("secret") if mount else None
    if mount is None or source is None or name not in {entry["path"] for entry in source["items"]}:
        yield f"{path} is in no mounted Secret"
        return
    if not mount.get("readOnly"):
        yield f"{path} is writable"
    if "subPath" in mount:
        yield f"{path} would not follow a change of its Secret"
    if source.get("defaultMode", 0o644) & 0o007:
        yield f"{path} can be read by every user of the pod"


def _gpu_pods(manifests: Manifests) -> list[Pod]:
    return [pod for pod in manifests.pods if "nvidia.com/gpu" in pod.main["resources"]["limits"]]


def _ports(pod: Pod) -> dict[str, int]:
    return {entry["name"]: entry["containerPort"] for entry in pod.main.get("ports", [])}


CHECKS = (configuration, serve, ports, placement, shutdown, startup, redis, credentials)
