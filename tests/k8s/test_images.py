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


def test_images_have_one_python_and_it_is_the_locks() -> None:
    bases = {re.findall(r"^ARG PYTHON=(\S+)$", path.read_text(), re.MULTILINE)[0] for path in RUNS}
    (base,) = bases
    python = re.fullmatch(r"python:(\d+\.\d+)\.\d+-slim-bookworm", base)
    assert python is not None, base
    assert f"--python-version {python[1]} " in (ROOT / "Makefile").read_text()
    assert f"Programming Language :: Python :: {python[1]}" in (ROOT / "pyproject.toml").read_text()


def test_worker_image_has_the_suites_torch_and_the_manifests_ray() -> None:
    pins = dict(re.findall(r"^(\S+)==(\S+)", (ROOT / "docker/worker.lock").read_text(), re.MULTILINE))
    assert f"torch=={pins['torch']}" in (ROOT / "constraints.txt").read_text().splitlines()
    service = yaml.safe_load((K8S / "base/ray/rayservice.yaml").read_text())
    assert service["spec"]["rayClusterConfig"]["rayVersion"] == pins["ray"]
    major, minor, *_ = pins["cuda-toolkit"].split(".")  # what torch's own package asks for
    needed = f"| NVIDIA driver {DRIVERS[int(major)]} or newer on the GPU nodes | CUDA {major}.{minor}, "
    assert needed in (ROOT / "docs/kubernetes.md").read_text()


def test_worker_image_can_compile_what_triton_launches() -> None:
    text = (ROOT / "docker/worker.Dockerfile").read_text()
    last_stage = text[text.rindex("\nFROM ") :]
    (installed,) = re.findall(r"apt-get install -y --no-install-recommends (.+?) *\\?$", last_stage, re.MULTILINE)
    assert {"gcc", "g++", "libc6-dev"} <= set(installed.split())  # Python.h is in the base


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_images_install_by_hash_or_what_they_built(path: Path) -> None:
    text = path.read_text()
    installs = re.findall(r"pip install --no-cache-dir (.+?) *\\?$", text, re.MULTILINE)
    by_hash = "--require-hashes --only-binary :all: -r docker/{}.lock"
    assert installs == [
        *(by_hash.format(name) for name in ("build", path.stem)),
        "--no-index --no-deps /wheels/*.whl",
    ]
    assert len(re.findall(r"\bpip install\b", text)) == len(installs)
    (built,) = re.findall(r"pip wheel --no-cache-dir (.+?) --wheel-dir", text)
    assert built == "--no-index --no-deps --no-build-isolation"
