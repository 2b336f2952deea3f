"""Changes of the file of API keys as text: what an operator wrote beside the entries stays as it is."""

import os
import stat
import tempfile
from itertools import count
from pathlib import Path

import yaml

from helios_services.config import ConfigError
from helios_services.gateway.guard.keys import KeyEntry, read_keys


class KeyText:
    """The text of a file of API keys. Every method raises ConfigError."""

    def __init__(self, path: Path) -> None:
        self.entries = read_keys(path)
        self._path, self._lines = path, path.read_text().splitlines(keepends=True)

    def entry(self, key_id: str) -> KeyEntry:
        """The entry of a key."""
        found = self.entries.get(key_id)
        if found is None:
            names = ", ".join(self.entries) or "nothing"
            raise ConfigError(f"key_id: {key_id!r} is not allowed; allowed: {names}, which {self._path} has")
        return found

    def successor(self, key_id: str) -> str:
        """An id that is free, for the key that follows: web-1 is followed by web-2, web by web-2."""
        name, _, number = key_id.rpartition("-")
        if not name or not number.isdigit():
            name, number = key_id, "1"
        return next(new for n in count(int(number) + 1) if (new := f"{name}-{n}") not in self.entries)

    def remove(self, key_id: str) -> None:
        """Takes a key away."""
        self.entry(key_id)
        if len(self.entries) == 1:
            self._write(["keys: []\n"])
            return
        start, end, _ = self._places()[list(self.entries).index(key_id)]
        self._write(self._lines[:start] + self._lines[end:])

    def add(self, entry: KeyEntry) -> None:
        """Puts a key behind the others."""
        if not self.entries:
            self._write(yaml.safe_dump({"keys": [as_values(entry)]}, sort_keys=False).splitlines(keepends=True))
            return
        _, end, indent = self._places()[-1]
        text = yaml.safe_dump([as_values(entry)], sort_keys=False)
        before = self._lines[:end]
        if not before[-1].endswith("\n"):
            before[-1] += "\n"
        self._write(before + [" " * indent + line for line in text.splitlines(keepends=True)] + self._lines[end:])

    def _places(self) -> list[tuple[int, int, int]]:
        """First line, the line behind the last, and the column of the dash, for each entry."""
        root = yaml.compose("".join(self._lines), Loader=yaml.SafeLoader)
        assert isinstance(root, yaml.MappingNode)
        listed = next(value for name, value in root.value if name.value == "keys")
        marks = [node.start_mark for node in listed.value]
        dashes = [self._lines[mark.line][: mark.column].strip() for mark in marks]
        if listed.flow_style or dashes != ["-"] * len(marks):
            raise ConfigError(f"{self._path}: its keys must be a list of lines that begin with a dash")
        starts = [mark.line for mark in marks]
        column = self._lines[starts[0]].index("-")
        return [(start, self._end(start, column), column) for start in starts]

    def _end(self, start: int, column: int) -> int:
        """Where an entry is over: before the next line that is not indented more than its dash."""
        for number in range(start + 1, len(self._lines)):
            line = self._lines[number]
            if line.strip() and len(line) - len(line.lstrip()) <= column:
                return number
        return len(self._lines)

    def _write(self, lines: list[str]) -> None:
        """The file appears whole, with the permissions that it had."""
        handle, part = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(handle, "w") as file:
                file.writelines(lines)
                os.fchmod(file.fileno(), stat.S_IMODE(self._path.stat().st_mode))
            read_keys(Path(part))
            Path(part).replace(self._path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
        self._lines, self.entries = lines, read_keys(self._path)


def as_values(entry: KeyEntry) -> dict[str, object]:
    """An entry as the file has it: what is not said is left out."""
    values = entry.model_dump(mode="json", exclude_defaults=True)
    values["scopes"] = sorted(scope.value for scope in entry.scopes)
    return values
