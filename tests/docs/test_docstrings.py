"""Docstrings are sentences about what they stand at, or say what it is; none begins with "Of"."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("benchmarks", "docs", "helios_engine", "k8s", "kernels", "services", "tests", "training")


def docstrings(file: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each, also of those below an attribute."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_docstring_begins_with_a_bare_genitive(folder: str) -> None:
    found = [
        (str(file.relative_to(ROOT)), line)
        for file in (ROOT / folder).rglob("*.py")
        for line, text in docstrings(file)
        if text.startswith("Of ")
    ]
    assert found == []
