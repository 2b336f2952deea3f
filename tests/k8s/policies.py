"""What every pod must be, those that KubeRay makes included. Each check gives its complaints."""

from collections.abc import Iterator

from k8s.build import Object
from k8s.manifests import Manifests, Pod, quantity

RUNS_TO_AN_END = {"Job/helios-weights"}


def hardened(manifests: Manifests) -> Iterator[str]:
    """Non-root, read-only root file system, no capabilities, no escalation, seccomp, no host access, no API token."""
    scales = bool(manifests.ray["spec"]["rayClusterConfig"].get("enableInTreeAutoscaling"))
    for pod in manifests.pods:
        yield from _pod_level(pod)
        asks = scales and pod.name == "RayService/head"  # the autoscaler, for pods
        if pod.spec.get("automountServiceAccountToken") is not asks:
            yield f"{pod.name}: {'needs a' if asks else 'gets a'} token for the API server"
        for container in pod.containers:
            yield from _container_level(f"{pod.name}/{container['name']}", container)
    cluster = manifests.ray["spec"]["rayClusterConfig"]
    if cluster.get("enableInTreeAutoscaling"):  # KubeRay adds this container to the head's pod
        autoscaler = {"name": "autoscaler", "image": "the:head's", **cluster.get("autoscalerOptions", {})}
        yield from _container_level("RayService/head/autoscaler", autoscaler)


def _pod_level(pod: Pod) -> Iterator[str]:
    context = pod.spec.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or context.get("runAsUser", 0) == 0:
        yield f"{pod.name}: may run as root"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield f"{pod.name}: seccomp profile is not RuntimeDefault"
    if any(pod.spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        yield f"{pod.name}: uses the host's namespaces"
    if any("hostPath" in volume for volume in pod.spec.get("volumes", [])):
        yield f"{pod.name}: mounts a path of the host"
    if pod.spec.get("enableServiceLinks") is not False:
        yield f"{pod.name}: service links set HELIOS_* variables, which the configuration refuses"
    if not pod.spec.get("serviceAccountName"):
        yield f"{pod.name}: uses the namespace's default account"


def _container_level(name: str, container: Object) -> Iterator[str]:
    context = container.get("securityContext", {})
    if context.get("readOnlyRootFilesystem") is not True:
        yield f"{name}: root file system is writable"
    if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
        yield f"{name}: may gain privileges"
    if context.get("capabilities", {}).get("drop") != ["ALL"] or context["capabilities"].get("add"):
        yield f"{name}: keeps capabilities"
    if context.get("runAsUser") == 0 or context.get("runAsNonRoot") is False:
        yield f"{name}: runs as root"
    resources = container.get("resources", {})
    for part in ("requests", "limits"):
        missing = {"cpu", "memory"} - set(resources.get(part, {}))
        if missing:
            yield f"{name}: no {part} for {', '.join(sorted(missing))}"
    for what, request in resources.get("requests", {}).items():
        limit = resources.get("limits", {}).get(what, request)
        if quantity(request) > quantity(limit):
            yield f"{name}: requests more {what} than its limit"
    _, _, tag = container["image"].rpartition(":")
    if "/" in tag or tag in ("", "latest") or ":" not in container["image"]:
        yield f"{name}: image {container['image']} is not pinned"


def writable(manifests: Manifests) -> Iterator[str]:
    """With a read-only root, what programs write to is a volume; memory and disk volumes are bounded."""
    for pod in manifests.pods:
        for volume in pod.spec.get("volumes", []):
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{pod.name}: volume {volume['name']} has no bound"
        if pod.group is not None:
            mounts = {mount["mountPath"] for mount in pod.main["volumeMounts"] if not mount.get("readOnly")}
            if not {"/tmp", "/dev/shm"} <= mounts:
                yield f"{pod.name}: Ray writes to /tmp and /dev/shm"
            store = quantity(pod.group["rayStartParams"].get("object-store-memory", 0))
            if store > quantity(pod.volume("shm")["emptyDir"]["sizeLimit"]):
                yield f"{pod.name}: the object store does not fit into /dev/shm"


def probed(manifests: Manifests) -> Iterator[str]:
    """Everything that keeps running is probed three ways, and liveness alone never decides at start."""
    for pod in manifests.pods:
        if pod.name in RUNS_TO_AN_END:
            continue
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            if kind not in pod.main:
                yield f"{pod.name}: no {kind}"


def authenticated(manifests: Manifests) -> Iterator[str]:
    """Ray's own ports ask for the cluster's token: network policies are not the only lock."""
    if manifests.ray["spec"]["rayClusterConfig"].get("authOptions", {}).get("mode") != "token":
        yield "RayService: whoever reaches Ray's ports can run code"


CHECKS = (authenticated, hardened, writable, probed)
