"""docs/kubernetes.md and the runbook: commands run, or are marked as needing a cluster and name what exists."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helios_services.config import ServiceConfig
from helios_services.gateway.guard.keys import KeyRing
from k8s.build import ROOT, command, variant
from k8s.manifests import Manifests, selects
from k8s.references import documented_secrets

TEXT = (ROOT / "docs/kubernetes.md").read_text()
BLOCKS = re.findall(r"^```(sh|sh cluster)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
LOCAL = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
CLUSTER = [
    *(line for kind, block in BLOCKS if kind == "sh cluster" for line in block.splitlines()),
    *(line for block in re.findall(r"^```sh cluster\n(.*?)^```", RUNBOOK, re.MULTILINE | re.DOTALL)
      for line in block.splitlines()),
    *re.findall(r"`(kubectl [^`]+)`", RUNBOOK),
]  # fmt: skip
BY_KUBERAY = {("service", "helios-head-svc")}
KINDS = {
    "job": "Job",
    "rayservice": "RayService",
    "service": "Service",
    "deployment": "Deployment",
    "statefulset": "StatefulSet",
}


def test_every_shell_block_says_whether_it_needs_a_cluster() -> None:
    assert len(LOCAL) == 7
    assert len(CLUSTER) > 10
    assert set(re.findall(r"^```(.+)$", TEXT, re.MULTILINE)) == {"sh", "sh cluster", "yaml"}


@pytest.mark.parametrize("line", [line for line in LOCAL if line.startswith("kubectl")])
def test_overlays_are_built(line: str) -> None:
    words = shlex.split(line)
    assert words[:2] == ["kubectl", "kustomize"]
    built = subprocess.run([*command(), *words[2:]], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "kind: RayService" in built


def test_keys_are_made_and_rotated(tmp_path: Path) -> None:
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    keys = []
    for line in (line for line in LOCAL if line.startswith("helios")):
        done = subprocess.run(
            ["sh", "-ec", line], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
        )
        keys.append(done.stderr.split(": ")[1].strip())
    ring = KeyRing(str(tmp_path / "keys.yaml"))
    names = [ring.authenticate("SubmitJob", (("authorization", f"Bearer {key}"),)).key_id for key in keys]
    assert names == ["first", "second"]


@pytest.mark.parametrize("line", CLUSTER)
def test_cluster_commands_name_what_exists(line: str, scratch: Path) -> None:
    manifests = Manifests(variant("production", scratch))
    for path in re.findall(r"\bk8s/[\w./-]+", line):
        assert (ROOT / path).exists(), path
    for kind, name in re.findall(r"\b(job|rayservice|service|deployment|statefulset)[/ ](helios[\w-]*)", line):
        assert (kind, name) in BY_KUBERAY or manifests.get(KINDS[kind], name) is not None, (kind, name)
    for folder in re.findall(r"-m (k8s[\w.]+)", line):
        assert (ROOT / f"{folder.replace('.', '/')}.py").exists(), folder
    for name in re.findall(r"\b(helios-[\w-]+)-0\b", line):
        assert manifests.get("StatefulSet", name) is not None, name
    for key, value in re.findall(r"-l ([\w./-]+)=([\w-]+)", line):
        assert any(selects({"matchLabels": {key: value}}, pod.labels) for pod in manifests.pods), value
    made = re.search(r"create secret generic (\S+)", line)
    if made:
        given = re.findall(r"--from-literal=([\w-]+)=", line) + re.findall(r"--from-file=([\w.-]+)", line)
        assert set(given) == documented_secrets()[made[1]]
    if made := re.search(r"create secret tls (\S+)", line):
        assert documented_secrets()[made[1]] == {"tls.crt", "tls.key"}
    if asked := re.search(r"get secret ((?:helios-[a-z-]+ )+)", line):
        assert set(asked[1].split()) <= set(documented_secrets())
    words = "create|delete|wait|rollout|port-forward|exec|get|logs|scale|describe"
    assert "-n helios" in line or not re.search(rf"kubectl ({words})", line)


@pytest.mark.parametrize("line", sorted(set(re.findall(r"`((?:helios|serve|ray) [a-z][^`]*)`", RUNBOOK))))
def test_tools_of_the_runbook_have_these_commands(line: str) -> None:
    names = [word for word in line.split() if re.fullmatch(r"[a-z]+", word)]
    tool = str(Path(sys.executable).parent / names[0])
    done = subprocess.run([tool, *names[1:], "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
    for name in ("base", "production+client-certificates", "production+webhooks"):
        text = str(Manifests(variant(name, scratch)).objects)
        used |= set(re.findall(r"'secretKeyRef': \{[^}]*'name': '([\w-]+)'", text))
        used |= set(re.findall(r"'secretName': '([\w-]+)'", text))
    assert set(documented_secrets()) == used
