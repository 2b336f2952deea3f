"""A break: a check of the manifests, and an edit that it must complain about. Edits that several breaks need."""

from collections.abc import Callable, Iterator
from typing import Any

from k8s.build import Object
from k8s.manifests import Manifests

Check = Callable[[Manifests], Iterator[str]]
Break = Callable[[Manifests], Any]
Breaks = dict[str, tuple[Check, Break]]


def worker(manifests: Manifests, name: str) -> Object:
    """A group of Ray workers."""
    groups = manifests.ray["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    return next(group for group in groups if group["groupName"] == name)


def container(manifests: Manifests, component: str) -> Object:
    """The main container of a component's pod."""
    return manifests.pod(component).main


def named(manifests: Manifests, kind: str, name: str) -> Object:
    """The object of this kind and name."""
    found = manifests.get(kind, name)
    assert found is not None
    return found


def config(manifests: Manifests, old: str, new: str) -> None:
    """Replaces text in every copy of the service's configuration."""
    sources = [item["data"] for item in manifests.of_kind("ConfigMap") if "helios.yaml" in item["data"]]
    assert any(old in source["helios.yaml"] for source in sources)
    for source in sources:
        source["helios.yaml"] = source["helios.yaml"].replace(old, new)


def setting(manifests: Manifests, name: str, value: str) -> None:
    """Sets a value of the one ConfigMap that has this name."""
    (source,) = [item["data"] for item in manifests.of_kind("ConfigMap") if name in item["data"]]
    source[name] = value


def projected(manifests: Manifests, component: str) -> list[Object]:
    """Sources of a component's Redis password."""
    sources: list[Object] = manifests.pod(component).volume("redis")["projected"]["sources"]
    return sources


def env(manifests: Manifests, component: str, **variable: Any) -> None:
    """Gives a component's container one more variable."""
    changed = container(manifests, component)
    changed["env"] = [*changed.get("env", []), variable]


def remove(manifests: Manifests, kind: str, name: str) -> None:
    """Removes an object."""
    manifests.objects.remove(named(manifests, kind, name))
