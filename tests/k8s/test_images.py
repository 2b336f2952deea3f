"""Dockerfiles: linted, pinned, not root, what they copy exists; the slim gateway is complete."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from k8s.build import K8S, ROOT

DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
RUNS = [path for path in DOCKERFILES if path.stem != "weights"]
DRIVERS = {12: 525, 13: 580}
"""The oldest driver for a major version of CUDA."""
EXTRAS = {"gateway": "gateway,s3", "worker": "serve,s3"}
"""What an image installs; tests/packaging holds what each extra brings."""


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


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_images_install_the_extras_of_their_parts(path: Path) -> None:
    (installed,) = re.findall(r"^RUN pip install --no-cache-dir '\.\[(.+)\]'$", path.read_text(), re.MULTILINE)
    assert installed == EXTRAS[path.stem]
