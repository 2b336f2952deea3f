"""Holds the hashed locks of the images (docker/*.lock) against what pyproject.toml asks for."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[0-9][A-Za-z0-9.]*)")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
TARGET = {"python_version": "3.11", "sys_platform": "linux", "platform_machine": "x86_64", "extra": ""}
"""What the images are, as markers name it."""


class LockError(Exception):
    """A lock holds something other than pinned packages with hashes; the message names the lines."""


def pins(text: str) -> dict[str, str]:
    """The version of each package of a lock. Raises LockError."""
    found, problems = dict[str, str](), list[str]()
    for line in text.replace("\\\n", " ").splitlines():
        pin, *hashes = line.split()
        match = PIN.fullmatch(pin)
        if match is None:
            problems.append(f"{line}: allowed: NAME==VERSION")
        elif not hashes or not all(HASH.fullmatch(one) for one in hashes):
            problems.append(f"{pin}: has no SHA-256, or something beside it")
        else:
            found[match["name"]] = match["version"]
    if problems:
        raise LockError("\n".join(problems))
    return found


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def asked(project: dict[str, Any], *extras: str) -> Iterator[Requirement]:
    """What the project asks for with extras, those that name each other followed."""
    lines = list(project["project"]["dependencies"])
    for extra in extras:
        lines += project["project"]["optional-dependencies"][extra]
    for requirement in map(Requirement, lines):
        if canonicalize_name(requirement.name) == project["project"]["name"]:
            yield from asked(project, *requirement.extras)
        else:
            yield requirement


def unmet(requirements: Iterable[Requirement], locked: dict[str, str]) -> list[str]:
    """The requirements of the images' platform that no pin fulfils, each with what the lock has."""
    found = []
    for requirement in requirements:
        if requirement.marker is not None and not requirement.marker.evaluate(TARGET):
            continue
        version = locked.get(canonicalize_name(requirement.name))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement}: the lock has {version}")
    return found
