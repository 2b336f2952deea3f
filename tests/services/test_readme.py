"""README and documents name commands, files and settings that exist."""

import re
import subprocess
from pathlib import Path

import pytest

from helios_services.config import ServiceConfig
from support.processes import HELIOS

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    "README.md",
    "docs/architecture.md",
    "docs/operations.md",
    "docs/api.md",
    "docs/monitoring.md",
    "docs/runbook.md",
    "docs/performance.md",
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_linked_and_named_files_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    linked = re.findall(r"\]\((?!http)([\w./-]+)\)", text)
    named = re.findall(r"`((?:services|tests|benchmarks|protos|helios_engine|docs)/[\w./-]*)`", text)
    for name in linked + named:
        base = ROOT / document
        assert (base.parent / name).exists() or (ROOT / name).exists(), name


def test_every_helios_command_of_the_readme_exists_with_its_options() -> None:
    commands = re.findall(r"^helios (.+?)(?:\s+#.*)?$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(commands) >= 6
    for command in commands:
        name = "jobs ls" if command.startswith("jobs") else command.split()[0]
        help_text = subprocess.run(
            [HELIOS, *name.split(), "--help"], capture_output=True, text=True, check=True, env={"COLUMNS": "200"}
        ).stdout
        for option in re.findall(r"(--[a-z-]+)", command):
            assert option in help_text, (command, option)


def test_make_targets_of_the_readme_exist() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "setup", "lint", "bench", "help"):
        assert f"make {target} " in listed


def test_settings_named_in_operations_exist() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    sections = ServiceConfig.model_fields
    named = [(s, name) for s, name in re.findall(r"`([a-z_]+)\.([a-z_]+)`", text) if s in sections]
    assert len(named) >= 5
    for section, name in named:
        kind = sections[section].annotation
        assert isinstance(kind, type)
        assert name in getattr(kind, "model_fields", {}), (section, name)
