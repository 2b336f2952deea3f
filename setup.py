"""Generates the Python code of protos/ before setuptools collects packages (the rest: pyproject.toml)."""

from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc
from setuptools import setup

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


generate()
setup()
