"""Every name in the objects leads somewhere: volumes, ConfigMap keys, Secrets, ports, accounts, targets, labels."""

import re
from collections.abc import Iterator
from pathlib import Path

from k8s.build import ROOT, Object
from k8s.manifests import Manifests, Pod, selects

CLUSTER_WIDE = {"Namespace", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
DOCUMENT = ROOT / "docs/kubernetes.md"


def documented_secrets(document: Path = DOCUMENT) -> dict[str, set[str]]:
    """Secrets that the operator makes, with their keys: the table of docs/kubernetes.md."""
    rows = re.findall(r"^\| `(helios-[a-z-]+)` \| (`[^|]+) \|", document.read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`([a-z.-]+)`", keys)) for name, keys in rows}


def unique(manifests: Manifests) -> Iterator[str]:
    """Objects have one namespace and names of their own."""
    seen: set[tuple[str, str]] = set()
    for item in manifests.objects:
        identity = item["kind"], item["metadata"]["name"]
        if identity in seen:
            yield f"{identity}: twice"
        seen.add(identity)
        wanted = None if item["kind"] in CLUSTER_WIDE else "helios"
        if item["metadata"].get("namespace") != wanted:
            yield f"{identity}: its namespace is not {wanted}"


def volumes(manifests: Manifests) -> Iterator[str]:
    """Mounts name volumes of their pod, all volumes are mounted, and their sources exist."""
    for pod in manifests.pods:
        declared = {volume["name"] for volume in pod.spec.get("volumes", [])} | pod.claims
        mounted = {mount["name"] for container in pod.containers for mount in container.get("volumeMounts", [])}
        for name in mounted ^ declared:
            yield f"{pod.name}: volume {name} is {'mounted but not declared' if name in mounted else 'never mounted'}"
        for volume in pod.spec.get("volumes", []):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and manifests.get("PersistentVolumeClaim", claim) is None:
                yield f"{pod.name}: claim {claim} does not exist"
            if (name := volume.get("configMap", {}).get("name")) and manifests.get("ConfigMap", name) is None:
                yield f"{pod.name}: ConfigMap {name} does not exist"
        for source in (source for container in pod.containers for source in container.get("envFrom", [])):
            if manifests.get("ConfigMap", source["configMapRef"]["name"]) is None:
                yield f"{pod.name}: ConfigMap {source['configMapRef']['name']} does not exist"


def files(manifests: Manifests) -> Iterator[str]:
    """Files that commands and variables name under a ConfigMap's mount are keys of that ConfigMap."""
    for pod in manifests.pods:
        for container in pod.containers:
            values = manifests.environment(container).values()
            hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
            words = [*container.get("command", []), *container.get("args", []), *hook, *values]
            for word in words:
                if word.startswith(("/etc/helios/", "/opt/helios/", "/etc/redis/")) and not _is_file(
                    manifests, pod, container, word
                ):
                    yield f"{pod.name}/{container['name']}: {word} is in no mounted ConfigMap"


def _is_file(manifests: Manifests, pod: Pod, container: Object, path: str) -> bool:
    folder, _, key = path.rpartition("/")
    for mount in container.get("volumeMounts", []):
        if mount["mountPath"] == folder:
            source = manifests.get("ConfigMap", pod.volume(mount["name"])["configMap"]["name"])
            return source is not None and key in source["data"]
    return False


def secrets(manifests: Manifests) -> Iterator[str]:
    """Secrets are referenced, never contained, and each reference is in the document's table."""
    known = documented_secrets()
    for item in manifests.of_kind("Secret"):
        yield f"Secret {item['metadata']['name']}: belongs into the cluster, not into the repository"
    for item in manifests.objects:
        for reference in _all_values(item, "secretKeyRef"):
            if reference["key"] not in known.get(reference["name"], set()):
                yield f"{item['kind']}: Secret {reference['name']}[{reference['key']}] is not documented"
    for source in _all_values(manifests.objects, "secret"):
        name = source.get("secretName") or source["name"]
        for entry in source.get("items", []):
            if entry["key"] not in known.get(name, set()):
                yield f"volume: Secret {name}[{entry['key']}] is not documented"
    for pod in manifests.pods:
        for container in pod.containers:
            for variable, value in manifests.environment(container).items():
                secret = re.search(r"(PASSWORD|TOKEN|SECRET|KEY)(?!_FILE$)", variable)
                if value and (secret or "@" in value):
                    yield f"{pod.name}: {variable} is written out"


def _all_values(tree: object, name: str) -> Iterator[Object]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key == name:
                yield value
            else:
                yield from _all_values(value, name)
    elif isinstance(tree, list):
        for value in tree:
            yield from _all_values(value, name)


def accounts(manifests: Manifests) -> Iterator[str]:
    """Pods use accounts that exist, and accounts are used."""
    used = {pod.spec.get("serviceAccountName") for pod in manifests.pods}
    exist = {item["metadata"]["name"] for item in manifests.of_kind("ServiceAccount")}
    for name in used ^ exist:
        yield f"ServiceAccount {name}: {'does not exist' if name in used else 'is not used'}"


def services(manifests: Manifests) -> Iterator[str]:
    """Services select pods that have the port; workloads select their own pods and nobody else's."""
    for item in manifests.of_kind("Service"):
        name, selector = item["metadata"]["name"], {"matchLabels": item["spec"]["selector"]}
        matched = [pod for pod in manifests.pods if selects(selector, pod.labels)]
        if len(matched) != 1:
            yield f"Service {name}: selects {len(matched)} kinds of pod"
        for port in item["spec"]["ports"]:
            yield from (f"Service {name}: {p.name} has no port {port}" for p in matched if not _has(p, port))
    for item in manifests.of_kind("Deployment", "StatefulSet"):
        identity = f"{item['kind']}/{item['metadata']['name']}"
        matched = [pod for pod in manifests.pods if selects(item["spec"]["selector"], pod.labels)]
        if [pod.name for pod in matched] != [identity]:
            yield f"{identity}: selects {[pod.name for pod in matched]}"
        governed_by = item["spec"].get("serviceName")
        if governed_by and manifests.get("Service", governed_by) is None:
            yield f"{identity}: Service {governed_by} does not exist"


def _has(pod: Pod, port: Object) -> bool:
    return has_port(pod, port["targetPort"] if "targetPort" in port else port["port"])


def has_port(pod: Pod, port: str | int) -> bool:
    """Whether a container of the pod declares the port, by name or number."""
    declared = [entry for container in pod.containers for entry in container.get("ports", [])]
    return any(port in (entry["name"], entry["containerPort"]) for entry in declared)


def targets(manifests: Manifests) -> Iterator[str]:
    """Scalers have a target and are alone on it; disruption budgets and spread constraints select pods."""
    scaled: list[str] = []
    for item in manifests.of_kind("HorizontalPodAutoscaler", "ScaledObject"):
        target = item["spec"]["scaleTargetRef"]
        scaled.append(target["name"])
        workload = manifests.get(target.get("kind", "Deployment"), target["name"])
        if workload is None:
            yield f"{item['kind']}: target {target['name']} does not exist"
        elif "replicas" in workload["spec"]:
            yield f"{item['kind']}: {target['name']} also sets replicas, which every apply would reset"
    yield from (f"{name}: has several scalers" for name in {name for name in scaled if scaled.count(name) > 1})
    for item in manifests.of_kind("PodDisruptionBudget"):
        if not any(selects(item["spec"]["selector"], pod.labels) for pod in manifests.pods):
            yield f"PodDisruptionBudget {item['metadata']['name']}: selects nothing"
    for pod in manifests.pods:
        for spread in pod.spec.get("topologySpreadConstraints", []):
            if not selects(spread["labelSelector"], pod.labels):
                yield f"{pod.name}: its spread constraint does not select it"


CHECKS = (unique, volumes, files, secrets, accounts, services, targets)
