"""What the pages name exists: commands with their options, settings, messages."""

import ast
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from docs.generate.settings import documented
from helios_services.cli import app
from helios_services.config import ServiceConfig

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GROUPS = {"jobs", "keys"}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_of_the_page_exist_with_their_options(page: Path) -> None:
    for block in re.findall(r"^ *```sh\b.*?\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.strip()
            if not line.startswith("helios "):
                continue
            words = shlex.split(line.partition(" | ")[0].partition(" > ")[0], comments=True)
            command: Any = typer.main.get_command(app)
            rest = words[1:]
            while rest and rest[0] in getattr(command, "commands", {}):
                command, rest = command.commands[rest[0]], rest[1:]
            assert not getattr(command, "commands", {}), line
            known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
            for word in rest:
                if word.startswith("-"):
                    assert word.partition("=")[0] in known, line


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "README.md"], ids=name_of)
def test_blocks_of_the_page_stand_apart(page: Path) -> None:
    """MkDocs takes a list, a table or a code block that follows other text without an empty line for part of it."""
    before, fenced = "", False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        alone = not before.strip() or before.startswith(("#", "<!--"))
        fence, item = line.lstrip().startswith("```"), re.match(r"\s*([-*]|\d+\.) ", line)
        continued = before.startswith(("  ", "|")) or re.match(r"\s*([-*]|\d+\.) ", before)
        if fenced:
            fenced = not fence
        elif fence:
            assert alone, (number, line)
            fenced = True
        elif item or line.startswith("|"):
            assert alone or continued, (number, line)
        elif before.strip() == "```":
            assert not line.strip(), (number, line)
        before = line


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_settings_of_the_page_exist(page: Path) -> None:
    sections = {name: field.annotation for name, field in ServiceConfig.model_fields.items()}
    for section, name in re.findall(r"`([a-z_]+)\.([a-z_]+)[`.:]", page.read_text()):
        fields = getattr(sections.get(section), "model_fields", None)
        if fields is not None and f"{section}.{name}" not in ("gateway.log", "model.safetensors"):
            assert name in fields, f"{section}.{name}"


def test_every_setting_says_what_it_is() -> None:
    def bare(prefix: str, kind: Any) -> list[str]:
        found, texts = [], documented(kind)
        for name, field in kind.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                found += bare(f"{prefix}{name}.", field.annotation)
            elif not texts.get(name):
                found.append(f"{prefix}{name}")
        return found

    assert bare("", ServiceConfig) == []


def literal_parts(message: str) -> list[str]:
    """What a message always says, without short words between what is put in."""
    return [part for part in (part.strip(" :") for part in message.split("…")) if len(part) > 3]


@cache
def said() -> tuple[str, ...]:
    """Every text of the program, "…" for what is put in."""
    texts = []
    for package in ("helios_engine", "services/helios_services"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
                    texts.append("".join(parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return tuple(texts)


def test_the_messages_of_troubleshooting_are_those_of_the_program() -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text()
    messages = re.findall(r"^\| `([^`]+)`", page, re.MULTILINE)
    assert len(messages) > 50
    for message in messages:
        if message.isupper() or message.startswith("UNAVAILABLE: failed to connect"):
            continue  # reasons, below; gRPC's own words
        parts = literal_parts(re.sub(r"^[A-Z_]+: ", "", message))
        assert not parts or any(all(part in one for part in parts) for one in said()), message


def raised(kinds: set[str]) -> set[str]:
    """Messages of these errors where the program raises them, "…" for what is put in."""
    found = set()
    for file in (ROOT / "services/helios_services").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds:
                texts = [text for argument in node.args for text in [text_of(argument)] if text is not None]
                found |= set(texts[-1:])
    return found


def text_of(node: ast.expr) -> str | None:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def test_every_message_that_does_not_say_what_to_do_is_on_the_page() -> None:
    page = re.findall(r"^\| `([^`]+)`", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    explained = [parts for text in page if (parts := literal_parts(re.sub(r"^[A-Z_]+: ", "", text)))]
    missing = []
    for message in raised({"UserError", "ConfigError", "Refusal"}):
        parts = literal_parts(message)
        named = re.fullmatch(
            r"[\w.…-]+: .*… .*is not allowed.*; allowed: .+", message
        )  # field, value and what is allowed
        if (
            parts
            and not named
            and not any(
                all(part in message for part in one) or all(any(part in each for each in one) for part in parts)
                for one in explained
            )
        ):
            missing.append(message)
    assert missing == []


def test_every_reason_of_a_failed_job_is_explained() -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text()
    reasons = {
        one for one in said() if re.fullmatch(r"(MEDIA|WORKER|PUBLISH|GENERATION|QUEUE|INVALID|NOT)_[A-Z_]+", one)
    }
    assert {"WORKER_LOST", "MEDIA_UNREADABLE"} <= reasons
    assert {one for one in reasons if f"`{one}`" not in page} - {"NOT_SERVING"} == set()
