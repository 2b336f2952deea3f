"""Builds kustomizations with the real tool: `kustomize`, or the one inside `kubectl`."""

import json
import os
import re
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

COMPONENTS = tuple(sorted(path.name for path in (K8S / "components").iterdir()))
OF_MONITORING = ("exporter-external-redis", "release-label")
"""Components of k8s/monitoring, which is beside an overlay and no component of one."""
OF_PRODUCTION = ("denoiser-4-gpus", "denoiser-8-gpus", "h100-only", "keda")
"""Components that the single-gpu overlay has no use for."""
TOGETHER = tuple(name for name in COMPONENTS if name not in OF_MONITORING)


def _variants() -> dict[str, tuple[str, tuple[str, ...]]]:
    found: dict[str, tuple[str, tuple[str, ...]]] = {
        "base": ("base", ()),
        "single-gpu": ("overlays/single-gpu", ()),
        "production": ("overlays/production", ()),
    }
    for overlay in ("single-gpu", "production"):
        fitting = [name for name in TOGETHER if overlay == "production" or name not in OF_PRODUCTION]
        for name in fitting:
            needs = ("gateway-tls",) if name == "client-certificates" and overlay == "single-gpu" else ()
            if not (name == "gateway-tls" and overlay == "production"):  # it has that
                found[f"{overlay}+{name}"] = (f"overlays/{overlay}", (*needs, name))
        one_size = [name for name in fitting if name != "denoiser-4-gpus"]
        all_of_them = tuple(name for name in one_size if name != "gateway-tls" or overlay == "single-gpu")
        found[f"{overlay}+all"] = (f"overlays/{overlay}", all_of_them)
        found[f"{overlay}+all, backwards"] = (f"overlays/{overlay}", all_of_them[::-1])
    found["production+monitoring"] = ("overlays/production", ("monitoring",))
    found["production+monitoring+release-label"] = ("overlays/production", ("monitoring", "release-label"))
    found["production+external-redis+monitoring"] = (
        "overlays/production",
        ("external-redis", "monitoring", "exporter-external-redis", "release-label"),
    )
    return found


VARIANTS = _variants()
"""Name: overlay, and what is added to it, in that order."""


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
    folder = scratch / re.sub(r"\W+", "-", name)
    folder.mkdir()
    up = os.path.relpath(K8S, folder.resolve())  # kustomize takes no absolute paths
    content: Object = {"resources": [f"{up}/{overlay}"], "components": []}
    if "monitoring" in components:
        content["resources"].append(f"{up}/monitoring")
    content["components"] = [f"{up}/components/{name}" for name in components if name != "monitoring"]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return folder


def variant(name: str, scratch: Path) -> list[Object]:
    """An overlay with components, as a user would combine them."""
    return build(_variant_folder(name, scratch))
