"""Production lets only digests run, by a policy that the API server evaluates; a command looks digests up."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from cel import evaluate

from k8s import pin_images
from k8s.build import K8S, ROOT, build, variant
from k8s.manifests import Manifests

DIGEST = "sha256:" + "5e" * 32


def _images(manifests: Manifests) -> set[str]:
    return {container["image"] for pod in manifests.pods for container in pod.containers}


def _refused(manifests: Manifests, pod: dict[str, Any]) -> bool:
    """Whether the policy's expressions refuse a pod, as the API server evaluates them."""
    policy = manifests.get("ValidatingAdmissionPolicy", "helios-pinned-images")
    assert policy is not None
    given = {"object": {"spec": pod}}
    variables = {each["name"]: evaluate(each["expression"], given) for each in policy["spec"]["variables"]}
    checks = [each["expression"] for each in policy["spec"]["validations"]]
    return not all(evaluate(check, given | {"variables": variables}) for check in checks)


def _container(image: str) -> dict[str, str]:
    return {"name": "c", "image": image}


@pytest.mark.parametrize(
    ("image", "refused"),
    [
        (f"redis@{DIGEST}", False),
        (f"registry.example.com:5000/a/b:1.2@{DIGEST}", False),
        ("redis:7.2.11-bookworm", True),
        ("redis", True),
        ("redis@sha256:5e5e", True),
        (f"redis@{DIGEST}:latest", True),
    ],
)
@pytest.mark.parametrize("place", ["containers", "initContainers", "ephemeralContainers", "volumes"])
def test_only_digests_run(place: str, image: str, refused: bool, production: Manifests) -> None:
    good = f"redis@{DIGEST}"
    pod: dict[str, Any] = {"containers": [_container(good)], "volumes": [{"name": "tmp", "emptyDir": {}}]}
    if place == "volumes":
        pod["volumes"].append({"name": "models", "image": {"reference": image}})
    else:
        pod[place] = [_container(good), _container(image)]
    assert _refused(production, pod) is refused


def test_the_policy_is_in_force_in_the_namespace_for_every_pod(production: Manifests) -> None:
    policy = production.get("ValidatingAdmissionPolicy", "helios-pinned-images")
    binding = production.get("ValidatingAdmissionPolicyBinding", "helios-pinned-images")
    assert policy is not None
    assert binding is not None
    assert policy["spec"]["failurePolicy"] == "Fail"
    (rule,) = policy["spec"]["matchConstraints"]["resourceRules"]
    assert {"CREATE", "UPDATE"} <= set(rule["operations"])
    assert {"pods", "pods/ephemeralcontainers"} <= set(rule["resources"])
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    assert binding["spec"]["validationActions"] == ["Deny"]
    selector = binding["spec"]["matchResources"]["namespaceSelector"]["matchLabels"]
    assert selector == {"kubernetes.io/metadata.name": "helios"}


def _crane(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> Path:
    """A stand-in for crane on PATH, which notes what it is asked."""
    tool = folder / "bin" / "crane"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "$2" >> {folder}/asked\n{answer}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    return folder / "asked"


def test_the_documented_tags_pin_every_image(scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/kubernetes.md").read_text()
    (tags,) = (block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "REGISTRY/" in block)
    plain = Manifests(variant("production+monitoring", scratch))
    named = {image.rpartition(":")[0] for image in _images(plain)}
    assert named == set(yaml.safe_load(tags))
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "tags.yaml").write_text(tags.replace("REGISTRY", "r.example.org"))
    asked = _crane(tmp_path, monkeypatch, f"echo {DIGEST}")
    assert set(pin_images.pin(folder).values()) == {DIGEST}
    assert asked.read_text().splitlines() == list(yaml.safe_load(tags.replace("REGISTRY", "r.example.org")).values())
    overlay = scratch / "pinned"
    overlay.mkdir()
    up = f"../{'../' * (len(scratch.resolve().parts) - 1)}"
    content = {
        "resources": [f"{up}{path.relative_to('/')}" for path in (K8S / "overlays/production", K8S / "monitoring")],
        "components": [f"{up}{folder.relative_to('/')}"],
    }
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(content))
    pinned = Manifests(build(overlay))
    assert f"r.example.org/helios-gateway@{DIGEST}" in _images(pinned)
    assert not [image for image in _images(pinned) if not image.endswith(f"@{DIGEST}")]
    assert not [pod.name for pod in pinned.pods if _refused(pinned, pod.spec)]
    assert [pod.name for pod in plain.pods if not _refused(plain, pod.spec)] == []


@pytest.mark.parametrize(
    ("tags", "answer", "named"),
    [
        ("redis: redis:7", "echo no such image >&2; exit 1", "redis:7: crane gave no digest: no such image"),
        ("redis: redis:7", "echo sha256:beef", "redis:7: crane gave no digest: sha256:beef"),
        ("redis: redis", f"echo {DIGEST}", "redis: 'redis' is not allowed; allowed: NAME:TAG"),
        ("[]", f"echo {DIGEST}", "must map"),
    ],
)
def test_nothing_is_written_without_a_digest(
    tags: str, answer: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tags.yaml").write_text(tags)
    _crane(tmp_path, monkeypatch, answer)
    with pytest.raises(pin_images.PinError, match=re.escape(named)):
        pin_images.pin(tmp_path)
    assert not (tmp_path / "kustomization.yaml").exists()
