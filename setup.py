"""Generates the Python code of protos/ before setuptools collects packages, and puts the player's pages into the wheel.

The rest: pyproject.toml.
"""

import shutil
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc
from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
OUT = ROOT / "protos" / "generated"


def generate() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    sources = sorted(str(path) for path in (ROOT / "protos" / "helios").rglob("*.proto"))
    flags = [f"--{plugin}_out={OUT}" for plugin in ("python", "grpc_python", "mypy", "mypy_grpc")]
    well_known = files("grpc_tools") / "_proto"
    if protoc.main(["protoc", f"-I{ROOT / 'protos'}", f"-I{well_known}", *flags, *sources]) != 0:
        raise SystemExit("protoc failed")
    for package in ("helios", "helios/v1"):
        (OUT / package / "__init__.py").touch()
    (OUT / "helios" / "py.typed").touch()


class WithPages(build_py):
    """web/ is installed where the gateway looks for it (gateway/http/pages.py); a source tree has it at its root."""

    def run(self) -> None:
        """Called by setuptools."""
        super().run()
        if not self.editable_mode:
            pages = Path(self.build_lib) / "helios_services" / "gateway" / "http" / "web"
            shutil.copytree(ROOT / "web", pages, dirs_exist_ok=True)


generate()
setup(cmdclass={"build_py": WithPages})
