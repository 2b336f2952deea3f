"""The images' locks: everything that pyproject.toml asks for, by version and hash, and from no place in particular."""

import copy
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from support.locks import ROOT, LockError, asked, pins, project, unmet

EXTRAS = {"gateway": ("gateway", "s3"), "worker": ("serve", "s3")}
LOCKS = sorted((ROOT / "docker").glob("*.lock"))
HASH = "--hash=sha256:" + "5e" * 32


def locked(name: str) -> dict[str, str]:
    return pins((ROOT / f"docker/{name}.lock").read_text())


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_every_line_is_a_version_with_hashes(path: Path) -> None:
    text = path.read_text()
    assert pins(text)
    assert "://" not in text


@pytest.mark.parametrize("image", EXTRAS)
def test_a_lock_has_what_its_extras_ask_for(image: str) -> None:
    assert unmet(asked(project(), *EXTRAS[image]), locked(image)) == [], "renew it: make lock"


def test_what_the_build_needs_is_locked() -> None:
    wanted = map(Requirement, project()["build-system"]["requires"])
    assert unmet(wanted, locked("build")) == [], "renew it: make lock"


@pytest.mark.parametrize("other", ["build", "gateway"])
def test_no_package_has_two_versions(other: str) -> None:
    """Also: code that grpcio-tools generates runs with its own version of grpcio and protobuf, or a newer one."""
    worker = locked("worker")
    assert {name: version for name, version in locked(other).items() if worker.get(name, version) != version} == {}


@pytest.mark.parametrize(
    ("part", "added", "named"),
    [
        ("gateway", "never-locked>=1", "never-locked>=1: the lock has None"),
        ("engine", "Never_Locked", "Never_Locked: the lock has None"),  # which serve asks for
        ("serve", "ray>=99", "ray>=99: the lock has 2."),
        ("engine", "torch<2", "torch<2: the lock has 2."),
        ("serve", "triton>=99; platform_machine == 'x86_64'", "triton>=99"),
    ],
)
def test_a_dependency_that_was_added_without_renewing_is_noticed(part: str, added: str, named: str) -> None:
    changed = copy.deepcopy(project())
    changed["project"]["optional-dependencies"][part].append(added)
    (found,) = unmet(asked(changed, *EXTRAS["worker"]), locked("worker"))
    assert found.startswith(named)


def test_dependencies_of_other_platforms_are_not_asked_for() -> None:
    assert unmet([Requirement("pywin32; sys_platform == 'win32'")], {}) == []


@pytest.mark.parametrize(
    "text",
    [
        "redis==8.1.0",
        "redis==8.1.0 \\\n    --hash=sha256:5e",
        "redis==8.1.0 \\\n    --hash=md5:" + "5e" * 16,
        f"redis>=8.1.0 \\\n    {HASH}",
        f"redis @ https://example.com/redis.whl \\\n    {HASH}",
        f"--index-url https://example.com/simple\nredis==8.1.0 \\\n    {HASH}",
        f"redis==8.1.0 \\\n    {HASH} \\\n    --index-url=https://example.com/simple",
    ],
)
def test_a_lock_with_anything_else_is_refused(text: str) -> None:
    assert pins(f"redis==8.1.0 \\\n    {HASH} \\\n    {HASH}\n") == {"redis": "8.1.0"}
    with pytest.raises(LockError):
        pins(text)
