"""Holds a checkpoint's files against its SHA256SUMS, in the format that coreutils' `sha256sum` writes."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path, PurePosixPath

from helios_engine.errors import CheckpointError, shorten

NAME = "SHA256SUMS"
LINE = re.compile(r"(?P<escaped>\\?)(?P<digest>[0-9a-fA-F]{64}) [ *](?P<name>.+)")
ESCAPE = re.compile(r"\\(.?)")
UNESCAPED = {"n": "\n", "r": "\r", "\\": "\\"}
LOADED = (".safetensors", ".json", ".model")
"""Endings of files that are loaded, and that a manifest should list."""


@dataclass(frozen=True, kw_only=True)
class ManifestReport:
    """A manifest that holds: how many files it lists, their bytes, and files to load that it does not list."""

    files: int
    bytes: int
    unlisted: tuple[str, ...]


def check_manifest(path: str | PathLike[str]) -> ManifestReport:
    """Hashes every file that the checkpoint's SHA256SUMS lists, without holding one in memory.

    Raises CheckpointError naming each line that is no entry and each file that is missing or differs, one a line.
    """
    root, problems, size = Path(path), list[str](), 0
    listed = set[str]()
    for number, line in _lines(root / NAME):
        try:
            name, digest = _entry(line)
        except ValueError as error:
            problems.append(f"{root / NAME}: line {number}: {error}")
            continue
        listed.add(str(PurePosixPath(name)))
        file = root / name
        try:
            with file.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            size += file.stat().st_size
        except OSError as error:
            problems.append(f"{file}: is listed in {NAME} and cannot be read: {error.strerror}")
            continue
        if found != digest:
            problems.append(f"{file}: has SHA-256 {found}, {NAME} says {digest}")
    if not listed and not problems:
        problems.append(f"{root / NAME}: lists no file")
    if problems:
        raise CheckpointError("\n".join(problems))
    loaded = (file.relative_to(root) for file in sorted(root.rglob("*")) if file.name.endswith(LOADED))
    unlisted = tuple(str(file) for file in loaded if file.as_posix() not in listed)
    return ManifestReport(files=len(listed), bytes=size, unlisted=unlisted)


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not empty."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file}: is not UTF-8: {error}") from None
    # not splitlines, which also splits at characters that a file's name may hold
    return ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def _entry(line: str) -> tuple[str, str]:
    """A line's file and digest. A leading backslash says that the name is escaped. Raises ValueError."""
    match = LINE.fullmatch(line.removesuffix("\r"))
    if match is None:
        raise ValueError(f"{shorten(line)} is not allowed; allowed: 64 hexadecimal digits, two spaces, a file")
    name = match["name"]
    if match["escaped"]:
        name = ESCAPE.sub(lambda escape: UNESCAPED.get(escape[1], escape[0]), name)
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\0" in name:
        raise ValueError(f"file {shorten(name)} is not allowed; allowed: files in the checkpoint's folder")
    return name, match["digest"].lower()
