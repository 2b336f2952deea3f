"""What importing a part of the engine brings along. Which part may import which: tests/test_import_graph.py."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("helios_engine", ["ray", "redis", "grpc", "torch"]),
        ("helios_engine.options", ["ray", "redis", "grpc", "torch"]),
        ("helios_engine.request", ["ray", "redis", "grpc", "torch"]),
        ("helios_engine.sampling.denoiser", ["ray", "redis", "grpc", "transformers"]),
        ("helios_engine.parallel.degrees", ["ray", "redis", "grpc", "torch"]),
        ("helios_engine.sampling.drive", ["ray", "redis", "grpc", "transformers"]),
        ("helios_engine.vae.decoder", ["ray", "redis", "grpc", "transformers"]),
        ("helios_engine.loading.tiny", ["ray", "redis", "grpc", "transformers"]),
        ("helios_engine.text.encoder", ["ray", "redis", "grpc", "transformers"]),
    ],
)
def test_import_brings_no_more_than_it_needs(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print(sorted(set({absent!r}) & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_the_engine_imports_nothing_of_a_service() -> None:
    found = [
        (path.name, name)
        for path in (ROOT / "helios_engine").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        if name.split(".")[0] in {"helios", "ray", "redis", "grpc", "diffusers"}
    ]
    assert found == []
