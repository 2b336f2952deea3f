"""Imports go downward: every import between our packages and folders is held to the table in docs/architecture.md."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
SOURCES = {
    "helios_kernels": ROOT / "kernels" / "helios_kernels",
    "helios_engine": ROOT / "helios_engine",
    "helios_services": ROOT / "services" / "helios_services",
    "helios_training": ROOT / "training" / "helios_training",
}
IMPORT = re.compile(
    r"^[ \t]*(?:import|from) (?P<module>helios_[\w.]+)(?: import (?:\((?P<many>[^)]*)\)|(?P<one>[^#\n]+)))?",
    re.MULTILINE,
)
START, END = "<!-- floors -->", "<!-- end of floors -->"


class Import(NamedTuple):
    """One import, of a module by another. place: file and line."""

    importer: str
    imported: str
    place: str


def floors(page: str) -> dict[str, int]:
    """Rooms by their floor, 0 the highest: the names between backquotes in each row of the table's first column."""
    table = page[page.index(START) : page.index(END)]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {name: floor for floor, row in enumerate(rows) for name in re.findall(r"`([\w.]+)`", row)}


def room(module: str, rooms: Mapping[str, int]) -> str | None:
    """The narrowest room that a module is in."""
    parts = module.split(".")
    return next((name for end in range(len(parts), 0, -1) if (name := ".".join(parts[:end])) in rooms), None)


def modules() -> dict[str, Path]:
    """Our modules and their files."""
    found = {}
    for package, folder in SOURCES.items():
        for file in folder.rglob("*.py"):
            *parts, last = file.relative_to(folder).with_suffix("").parts
            found[".".join([package, *parts, *([] if last == "__init__" else [last])])] = file
    return found


def imports(found: Mapping[str, Path]) -> Iterator[Import]:
    """Every import of one of our modules by another, wherever in the file it stands.

    Files are read as text: Python 3.11 now and then fails to build a tree in a long test run.
    """
    for importer, file in found.items():
        if importer in SOURCES:
            continue  # a package's front door, which names what is inside for type checkers
        text = file.read_text()
        for match in IMPORT.finditer(text):
            place = f"{file.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}"
            module, many, one = match["module"], match["many"], match["one"]
            names = [word.split()[0] for word in (many or one or "").split(",") if word.strip()]
            for name in names or [""]:
                whole = f"{module}.{name}"
                yield Import(importer, whole if whole in found else module, place)


def upward(found: list[Import], rooms: Mapping[str, int]) -> list[str]:
    """The imports that do not go to a lower floor, or touch a module that has none."""
    wrong = []
    for importer, imported, place in found:
        above, below = room(importer, rooms), room(imported, rooms)
        if above is None or below is None:
            wrong.append(f"{place}: {importer if above is None else imported} is in no room of the table")
        elif above != below and rooms[above] >= rooms[below]:
            wrong.append(f"{place}: {above} imports {below}, which is not below it")
    return wrong


def test_imports_go_downward() -> None:
    found = list(imports(modules()))
    assert len(found) > 500
    assert upward(found, floors(PAGE.read_text())) == []


def test_every_room_is_there_and_every_folder_has_one() -> None:
    rooms, found = floors(PAGE.read_text()), modules()
    assert sorted(rooms.keys() - found.keys()) == [], "rooms of the table without a file"
    folders = {name for name, file in found.items() if file.name == "__init__.py"}
    assert sorted(folders - rooms.keys()) == [], "folders without a row in the table"


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("helios_engine.model.block", "helios_services.config"),
        ("helios_engine.model.block", "helios_engine.sampling.state"),
        ("helios_engine.checkpoint.open", "helios_engine.loading.text"),
        ("helios_kernels.rgb", "helios_engine.errors"),
        ("helios_engine.request", "helios_engine.pipeline"),
        ("helios_unknown.here", "helios_engine.errors"),
    ],
)
def test_an_import_upward_is_found(importer: str, imported: str) -> None:
    rooms = floors(PAGE.read_text())
    assert upward([Import(imported, importer, "")], rooms) == [] or importer.startswith("helios_unknown")
    assert upward([Import(importer, imported, "")], rooms) != []
