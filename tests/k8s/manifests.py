"""A view of built objects: pods wherever they are declared, and what is declared in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from k8s.build import Object

PART_OF = "app.kubernetes.io/part-of"
COMPONENT = "app.kubernetes.io/component"


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod template: of a Deployment, StatefulSet or Job, or of a group of a RayService."""

    name: str
    labels: dict[str, str]
    spec: Object
    group: Object | None = None
    """The RayService's head or worker group."""
    claims: frozenset[str] = frozenset()
    """Volumes that a StatefulSet's claim templates add."""

    @property
    def containers(self) -> list[Object]:
        """All containers, init containers first."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def main(self) -> Object:
        """The container that runs."""
        first: Object = self.spec["containers"][0]
        return first

    def volume(self, name: str) -> Object:
        """Raises StopIteration."""
        return next(volume for volume in self.spec.get("volumes", []) if volume["name"] == name)


class Manifests:
    """The objects of one build."""

    def __init__(self, objects: list[Object]) -> None:
        self.objects = objects

    def of_kind(self, *kinds: str) -> list[Object]:
        """Objects of the kinds."""
        return [item for item in self.objects if item["kind"] in kinds]

    def get(self, kind: str, name: str) -> Object | None:
        """The object, or None."""
        return next((item for item in self.of_kind(kind) if item["metadata"]["name"] == name), None)

    @property
    def ray(self) -> Object:
        """The RayService."""
        (service,) = self.of_kind("RayService")
        return service

    @property
    def pods(self) -> list[Pod]:
        """Every pod template."""
        return list(self._pods())

    def pod(self, component: str) -> Pod:
        """The pod with that component label."""
        (found,) = [pod for pod in self.pods if pod.labels.get(COMPONENT) == component]
        return found

    def _pods(self) -> Iterator[Pod]:
        for item in self.of_kind("Deployment", "StatefulSet", "Job", "DaemonSet", "CronJob"):
            template = item["spec"]["template"]
            claims = frozenset(claim["metadata"]["name"] for claim in item["spec"].get("volumeClaimTemplates", []))
            yield _pod(f"{item['kind']}/{item['metadata']['name']}", template, claims=claims)
        for item in self.of_kind("RayService"):
            cluster = item["spec"]["rayClusterConfig"]
            yield _pod("RayService/head", cluster["headGroupSpec"]["template"], group=cluster["headGroupSpec"])
            for group in cluster["workerGroupSpecs"]:
                yield _pod(f"RayService/{group['groupName']}", group["template"], group=group)

    def config_text(self, whose: str) -> str:
        """The YAML of our own configuration: of the `gateway`, or of what runs on `ray`."""
        return str(self.config_map(f"helios-{whose}-config")["helios.yaml"])

    def config_map(self, name: str) -> dict[str, str]:
        """What a generated ConfigMap holds, by its name without the hash."""
        (data,) = [
            item["data"]
            for item in self.of_kind("ConfigMap")
            if re.fullmatch(rf"{name}(-[a-z0-9]{{10}})?", item["metadata"]["name"])
        ]
        return dict(data)

    def environment(self, container: Object) -> dict[str, str]:
        """Variables of a container, from ConfigMaps too; those of Secrets are empty."""
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            item = self.get("ConfigMap", source["configMapRef"]["name"])
            found |= item["data"] if item is not None else {}
        return found | {variable["name"]: variable.get("value", "") for variable in container.get("env", [])}

    def serve_config(self) -> Any:
        """What KubeRay sends to Serve."""
        return yaml.safe_load(self.ray["spec"]["serveConfigV2"])


def _pod(name: str, template: Object, group: Object | None = None, claims: frozenset[str] = frozenset()) -> Pod:
    labels = template["metadata"]["labels"]
    return Pod(name=name, labels=labels, spec=template["spec"], group=group, claims=claims)


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a LabelSelector matches labels."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for rule in selector.get("matchExpressions", []):
        value, operator = labels.get(rule["key"]), rule["operator"]
        holds = {
            "In": value in rule.get("values", []),
            "NotIn": value not in rule.get("values", []),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[operator]
        if not holds:
            return False
    return True


def quantity(text: str | int) -> float:
    """A Kubernetes quantity as a number: "500m" is 0.5, "1Gi" is 2**30."""
    units = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    digits = str(text).rstrip("mkMGTKi")
    return float(digits) * units.get(str(text)[len(digits) :], 1)
