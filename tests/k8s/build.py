"""Builds kustomizations with the real tool: `kustomize`, or the one inside `kubectl`."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
Object = dict[str, Any]

MONITORING = "monitoring"
"""Beside an overlay, not a component of one."""
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "base": ("base", ()),
    "single-gpu": ("overlays/single-gpu", ()),
    "production": ("overlays/production", ()),
    "production+external-redis": ("overlays/production", ("external-redis",)),
    "production+keda": ("overlays/production", ("keda",)),
    "production+spot": ("overlays/production", ("spot-denoisers",)),
    "production+image-volume": ("overlays/production", ("weights-image-volume",)),
    "production+client-certificates": ("overlays/production", ("client-certificates",)),
    "production+all": (
        "overlays/production",
        ("external-redis", "spot-denoisers", "weights-image-volume", "client-certificates", "compile-cache"),
    ),
    "production+monitoring": ("overlays/production", ("monitoring",)),
    "single-gpu+external-redis": ("overlays/single-gpu", ("external-redis",)),
    "single-gpu+compile-cache": ("overlays/single-gpu", ("compile-cache",)),
    "single-gpu+spot": ("overlays/single-gpu", ("spot-denoisers",)),
    "single-gpu+tls": ("overlays/single-gpu", ("gateway-tls", "client-certificates")),
}


@cache
def command() -> tuple[str, ...]:
    """The command that builds a folder. Skips the test when there is none."""
    installed = Path(sys.executable).parent / "kustomize"
    if kustomize := shutil.which("kustomize") or (str(installed) if installed.exists() else None):
        return (kustomize, "build")
    if kubectl := shutil.which("kubectl"):
        answer = subprocess.run([kubectl, "version", "--client", "-o", "json"], capture_output=True, text=True)
        version = json.loads(answer.stdout or "{}").get("kustomizeVersion")
        if version:  # older ones carry kustomize 2, which has no components, and do not say so
            return (kubectl, "kustomize")
    pytest.skip("neither kustomize nor a kubectl that carries kustomize 4 or newer (`make kustomize` installs one)")


@cache
def _build(folder: Path) -> str:
    return subprocess.run([*command(), str(folder)], capture_output=True, text=True, check=True).stdout


def build(folder: Path) -> list[Object]:
    """The objects of a kustomization, as fresh copies."""
    return [document for document in yaml.load_all(_build(folder), yaml.CSafeLoader) if document]


@cache
def _variant_folder(name: str, scratch: Path) -> Path:
    overlay, components = VARIANTS[name]
    if not components:
        return K8S / overlay
    folder = scratch / name.replace("+", "-")
    folder.mkdir()
    up = os.path.relpath(K8S, folder.resolve())  # kustomize takes no absolute paths
    content = {
        "resources": [f"{up}/{overlay}", *(f"{up}/{name}" for name in components if name == MONITORING)],
        "components": [f"{up}/components/{name}" for name in components if name != MONITORING],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return folder


def variant(name: str, scratch: Path) -> list[Object]:
    """An overlay with components, as a user would combine them."""
    return build(_variant_folder(name, scratch))
