"""The wheel of each image, built from no more than its Dockerfile copies, holds the whole source tree, and works."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import pytest

from k8s.build import ROOT

PACKAGES = {"helios_engine": ".", "helios_kernels": "kernels", "helios_services": "services"}
"""Where they lie."""
GENERATED = {f"helios/v1/video_generation_pb2{end}" for end in (".py", ".pyi", "_grpc.py", "_grpc.pyi")}
USE_IT = """
import importlib, sys
from pathlib import Path

wheel, libraries = sys.argv[1:]
sys.path[:0] = [wheel]
sys.path.append(libraries)  # as a plain folder: its .pth files would add the source tree of an editable installation
for path in sorted(Path(wheel).glob("helios*/**/*.py")):
    parts = path.relative_to(wheel).with_suffix("").parts
    if parts[-1] not in ("__init__", "__main__"):
        module = importlib.import_module(".".join(parts))
        assert module.__file__ == str(path), module.__file__

from helios_services.jobs.scripts import source

names = sorted(path.stem for path in Path(wheel).glob("helios_services/jobs/lua/*.lua"))
print(sum(len(source(name)) > 500 for name in names))
"""


def _patterns() -> list[tuple[bool, re.Pattern[str]]]:
    """The lines of .dockerignore: whether they keep, and what they match."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    translated = [
        re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*") for line in lines
    ]
    return [(line[0] == "!", re.compile(text)) for line, text in zip(lines, translated, strict=True)]


def _context(path: Path) -> bool:
    """Whether a file is in the build context: the last line that matches it or a folder above decides."""
    relative = path.relative_to(ROOT)
    names = [str(parent) for parent in (relative, *relative.parents) if parent != Path()]
    kept = True
    for keeps, pattern in _patterns():
        if any(pattern.fullmatch(name) for name in names):
            kept = keeps
    return kept


def _files(folder: Path) -> Iterator[Path]:
    for path in [folder] if folder.is_file() else folder.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


@pytest.fixture(params=["gateway", "worker"])
def wheel(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Built without network and isolation, from a copy of what is copied before the Dockerfile's build."""
    for module in ("grpc_tools", "mypy_protobuf"):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed (the extra `dev` brings it)")
    text = (ROOT / f"docker/{request.param}.Dockerfile").read_text()
    before, build, _ = re.split(r"(^RUN .*pip wheel .* \. \\$)", text, flags=re.MULTILINE)
    assert build
    copied = tmp_path / "src"
    for sources in re.findall(r"^COPY (.+) \S+$", before, re.MULTILINE):
        for path in (path for source in sources.split() for path in _files(ROOT / source)):
            if _context(path):
                target = copied / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
    built = tmp_path / "wheels"
    command = [sys.executable, "-m", "pip", "wheel", "--no-index", "--no-deps", "--no-build-isolation"]
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # protoc's plugins
    done = subprocess.run(
        [*command, "--wheel-dir", str(built), "."],
        cwd=copied,
        env=os.environ | {"PATH": programs},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (file,) = built.iterdir()
    return file


def test_the_wheel_holds_the_source_tree_and_works(wheel: Path, tmp_path: Path) -> None:
    expected = {
        str(path.relative_to(ROOT / folder))
        for package, folder in PACKAGES.items()
        for path in _files(ROOT / folder / package)
    }
    pages = {f"helios_services/gateway/http/web/{path.relative_to(ROOT / 'web')}" for path in _files(ROOT / "web")}
    with ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == expected | pages | GENERATED | {"helios/__init__.py", "helios/v1/__init__.py", "helios/py.typed"}
    installed = tmp_path / "installed"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(installed)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    libraries = sysconfig.get_path("purelib")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", USE_IT, str(installed), libraries],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    scripts = list((ROOT / "services/helios_services/jobs/lua").glob("*.lua"))
    assert int(done.stdout) == len(scripts) > 0
