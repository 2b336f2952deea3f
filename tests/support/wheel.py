"""Builds the wheel and installs it into fresh environments, as a user gets it."""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = (
    "pyproject.toml",
    "setup.py",
    "README.md",
    "LICENSE",
    "NOTICE",
    "protos/helios",
    "helios_engine",
    "kernels",
    "training",
    "services",
    "web",
)
NO_INDEX = re.compile(r"NewConnectionError|NameResolutionError|Temporary failure in name resolution|ProxyError")


def build_wheel(folder: Path) -> Path:
    """Builds in `folder`, from a copy of the sources: the build leaves files in its tree."""
    copy, built = folder / "sources", folder / "wheels"
    for name in SOURCES:
        source, target = ROOT / name, copy / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # protoc's plugins
    done = subprocess.run(
        [*command, "--wheel-dir", str(built), "."],
        cwd=copy,
        env=os.environ | {"PATH": programs},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (file,) = built.iterdir()
    return file


def install_wheel(wheel: Path, extra: str, folder: Path) -> Path:
    """Makes an environment with the wheel, an extra ("" for none) and all that they ask for; its folder of programs.

    Skips the test where no package index can be reached.
    """
    venv.create(folder, symlinks=True)
    wanted = f"{wheel}[{extra}]" if extra else str(wheel)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install", "-q", "--retries=1", wanted],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0 and NO_INDEX.search(done.stderr):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    return folder / "bin"
