"""docs/kubernetes.md: commands run, or are marked as needing a cluster and name what exists."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from helios_services.config import ServiceConfig
from k8s.build import ROOT, command, variant
from k8s.manifests import Manifests, selects
from k8s.references import documented_secrets

TEXT = (ROOT / "docs/kubernetes.md").read_text()
BLOCKS = re.findall(r"^```(sh|sh cluster)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
LOCAL = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
CLUSTER = [line for kind, block in BLOCKS if kind == "sh cluster" for line in block.splitlines()]
KINDS = {
    "job": "Job",
    "rayservice": "RayService",
    "service": "Service",
    "deployment": "Deployment",
    "statefulset": "StatefulSet",
}


def test_every_shell_block_says_whether_it_needs_a_cluster() -> None:
    assert len(LOCAL) == 2
    assert len(CLUSTER) > 10
    assert set(re.findall(r"^```(.+)$", TEXT, re.MULTILINE)) == {"sh", "sh cluster", "yaml"}


@pytest.mark.parametrize("line", LOCAL)
def test_local_commands_run(line: str) -> None:
    words = shlex.split(line)
    assert words[:2] == ["kubectl", "kustomize"]
    built = subprocess.run([*command(), *words[2:]], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "kind: RayService" in built


@pytest.mark.parametrize("line", CLUSTER)
def test_cluster_commands_name_what_exists(line: str, scratch: Path) -> None:
    manifests = Manifests(variant("production", scratch))
    for path in re.findall(r"\bk8s/[\w./-]+", line):
        assert (ROOT / path).exists(), path
    for kind, name in re.findall(r"\b(job|rayservice|service|deployment|statefulset)[/ ](helios[\w-]*)", line):
        assert manifests.get(KINDS[kind], name) is not None, (kind, name)
    for key, value in re.findall(r"-l ([\w./-]+)=([\w-]+)", line):
        assert any(selects({"matchLabels": {key: value}}, pod.labels) for pod in manifests.pods), value
    made = re.search(r"create secret generic (\S+)", line)
    if made:
        assert set(re.findall(r"--from-literal=([\w-]+)=", line)) == documented_secrets()[made[1]]
    assert "-n helios" in line or not re.search(r"kubectl (create|delete|wait|rollout|port-forward)", line)


def test_named_files_and_settings_exist() -> None:
    for name in re.findall(r"`((?:k8s|docker|docs)/[\w./-]*)`", TEXT):
        assert (ROOT / name).exists(), name
    for section, name in re.findall(r"`(\w+)\.(\w+)`", TEXT):
        if section in ServiceConfig.model_fields:
            kind = ServiceConfig.model_fields[section].annotation
            assert isinstance(kind, type)
            assert name in getattr(kind, "model_fields", {}), (section, name)


def test_every_component_and_secret_is_explained(scratch: Path) -> None:
    for component in (ROOT / "k8s/components").iterdir():
        assert f"`k8s/components/{component.name}`" in TEXT
    used: set[str] = set()
    for name in ("base", "production"):
        text = str(Manifests(variant(name, scratch)).objects)
        used |= set(re.findall(r"'secretKeyRef': \{[^}]*'name': '([\w-]+)'", text))
    assert set(documented_secrets()) == used
