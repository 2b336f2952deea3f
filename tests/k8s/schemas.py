"""Objects against their schemas, unknown fields refused: Kubernetes' own kinds, custom resources, nested pods."""

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from kubernetes_validate import ValidationError, validate

from k8s.build import ROOT, Object
from k8s.manifests import Manifests

OLDEST, NEWEST = "1.31", "1.35"
CUSTOM = {"ray.io", "keda.sh", "monitoring.coreos.com"}


def crd_folder() -> Path | None:
    """Where the CRDs are that the operators publish: $K8S_CRDS, or beside the checkout."""
    folder = Path(os.environ.get("K8S_CRDS") or ROOT.parent / "shared" / "crds")
    return folder if folder.is_dir() else None


def built_in(manifests: Manifests) -> Iterator[str]:
    """Kubernetes' own kinds, and the pods inside the RayService."""
    pods = [
        {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": pod.name}, "template": pod.group["template"]}
        for pod in manifests.pods
        if pod.group is not None
    ]
    own = [item for item in manifests.objects if _group(item) not in CUSTOM]
    for item in [*own, *pods]:
        text = json.dumps(item, sort_keys=True)
        for version in (OLDEST, NEWEST):
            if complaint := _validate(text, version):
                yield f"{item['kind']} {item['metadata']['name']}: {version}: {complaint}"


@cache  # the same objects are in many builds
def _validate(text: str, version: str) -> str:
    try:
        validate(json.loads(text), version, strict=True)
    except ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    return ""


def custom(manifests: Manifests) -> Iterator[str]:
    """Custom resources, against the CRDs. Needs `crd_folder`."""
    for item in manifests.objects:
        if _group(item) in CUSTOM:
            validator = _crd_validator(f"{item['apiVersion']}/{item['kind']}")
            if validator is None:
                yield f"{item['kind']}: no CRD declares {item['apiVersion']}"
                continue
            for error in validator.iter_errors(item):
                yield f"{item['kind']}: {error.json_path}: {error.message[:300]}"


def _group(item: Object) -> str:
    return str(item["apiVersion"].partition("/")[0])


@cache
def _crd_validator(kind: str) -> jsonschema.Draft202012Validator | None:
    folder = crd_folder()
    assert folder is not None
    for path in sorted(folder.glob("*.yaml")):
        spec = yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]
        for version in spec["versions"]:
            if f"{spec['group']}/{version['name']}/{spec['names']['kind']}" == kind:
                schema = _closed(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object"}  # the API server's, not the CRD's
                return jsonschema.Draft202012Validator(schema)
    return None


def _closed(schema: Any) -> Any:
    """The schema with unknown fields refused where the API server would drop them without a word."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not open_ended:
        closed["additionalProperties"] = False
    return closed
