"""Dockerfiles: linted, pinned, not root, what they copy exists; the slim gateway is complete."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from k8s.build import K8S, ROOT

DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
RUNS = [path for path in DOCKERFILES if path.stem != "weights"]
DRIVERS = {12: 525, 13: 580}
"""The oldest driver for a major version of CUDA."""
ONLY_LISTED = """
import sys
allowed = set(sys.argv[1].split(","))

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in allowed:
            raise ImportError(f"{name} is not in the gateway's image")

sys.meta_path.insert(0, Refuse())
import helios_services.cli, helios_services.gateway.main, helios_services.jobs.embedded
"""


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint_has_no_complaints(path: Path) -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed (the extra `dev` brings it)")
    answer = subprocess.run([hadolint, "--no-color", str(path)], capture_output=True, text=True)
    assert answer.stdout + answer.stderr == ""


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_images_are_pinned_and_not_root(path: Path) -> None:
    text = path.read_text()
    defaults = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, re.MULTILINE))
    for base in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
        image = re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], base)
        assert re.fullmatch(r"[a-z0-9./-]+:[a-z0-9._-]*\d+\.\d+\.\d+[a-z0-9._-]*", image), image
    last_stage = text[text.rindex("\nFROM ") :]
    assert re.findall(r"^USER (.+)$", last_stage, re.MULTILINE) == ["1000:1000"]
    assert "@sha256:" in text, "says how to pin by digest"


def test_what_images_copy_is_in_the_build_context() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for path in RUNS:
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", path.read_text(), re.MULTILINE):
            for source in sources.split():
                assert (ROOT / source).exists(), source
                assert source in kept, source


def test_worker_image_has_the_suites_torch_and_the_manifests_ray() -> None:
    text = (ROOT / "docker/worker.Dockerfile").read_text()
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, re.MULTILINE))
    assert f"torch=={arguments['TORCH']}" in (ROOT / "constraints.txt").read_text()
    service = yaml.safe_load((K8S / "base/ray/rayservice.yaml").read_text())
    assert service["spec"]["rayClusterConfig"]["rayVersion"] == arguments["RAY"]
    major, minor, _ = arguments["CUDA"].split(":")[1].split("-")[0].split(".")
    assert arguments["TORCH_CUDA"] == f"cu{major}{minor}"
    assert f"driver {DRIVERS[int(major)]} or newer" in (ROOT / "docs/kubernetes.md").read_text()


def test_worker_image_can_compile_what_triton_launches() -> None:
    text = (ROOT / "docker/worker.Dockerfile").read_text()
    last_stage = text[text.rindex("\nFROM ") :]
    (installed,) = re.findall(r"apt-get install -y --no-install-recommends (.+?) *\\?$", last_stage, re.MULTILINE)
    assert {"gcc", "g++", "libc6-dev", "python3-dev"} <= set(installed.split())


def test_gateway_image_installs_what_the_gateway_imports_and_no_more() -> None:
    lines = (ROOT / "docker/gateway-requirements.txt").read_text().splitlines()
    listed = {line for line in lines if line and not line.startswith("#")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = {Requirement(line).name for line in [*project["dependencies"], *project["optional-dependencies"]["s3"]]}
    assert listed <= ours
    assert not listed & {"torch", "ray", "transformers", "av"}
    absent = ours - _closure(listed)
    modules = {name.replace("-", "_") for name in absent} | {"huggingface_hub", "ray", "torch", "numpy", "av"}
    done = subprocess.run([sys.executable, "-c", ONLY_LISTED, ",".join(modules)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _closure(names: set[str]) -> set[str]:
    """The packages with all that they need, as far as they are installed here."""
    found: set[str] = set()
    todo = set(names)
    while todo:
        name = todo.pop()
        found.add(name)
        try:
            needs = [Requirement(line) for line in requires(name) or []]
        except ModuleNotFoundError:
            continue
        todo |= {need.name for need in needs if not need.marker or need.marker.evaluate({"extra": ""})} - found
    return found


def test_constraints_cover_the_gateways_requirements() -> None:
    done = subprocess.run(
        [sys.executable, "docker/constraints.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    constrained = {Requirement(line).name for line in done.stdout.splitlines()}
    lines = (ROOT / "docker/gateway-requirements.txt").read_text().splitlines()
    assert {line for line in lines if not line.startswith("#")} <= constrained
