"""The store's Lua scripts: tables that Python holds, the prelude and one file per change."""

from functools import cache
from importlib.resources import files

from helios_services.jobs.records import Priority
from helios_services.jobs.state import DEAD_LETTERED, LEASED, MAX_DEAD_LETTERS, SUSPECT_LOSSES, TRANSITIONS


@cache
def source(name: str) -> str:
    """The complete text of a script."""
    folder = files("helios_services.jobs") / "lua"
    return "\n".join([_tables(), (folder / "prelude.lua").read_text(), (folder / f"{name}.lua").read_text()])


def _tables() -> str:
    events: dict[str, list[str]] = {}
    for (start, event), end in TRANSITIONS.items():
        events.setdefault(start, []).append(f"{event}='{end}'")
    rows = ", ".join(f"{start}={{{', '.join(pairs)}}}" for start, pairs in events.items())
    priorities = ", ".join(f"'{priority}'" for priority in Priority)
    return "\n".join(
        (
            f"local TRANSITIONS = {{{rows}}}",
            f"local LEASED = {{{_set(LEASED)}}}",
            f"local DEAD_LETTERED = {{{_set(DEAD_LETTERED)}}}",
            f"local PRIORITIES = {{{priorities}}}",
            f"local MAX_DEAD_LETTERS = {MAX_DEAD_LETTERS}",
            f"local SUSPECT_LOSSES = {SUSPECT_LOSSES}",
        )
    )


def _set(names: frozenset[str]) -> str:
    return ", ".join(f"{name}=true" for name in sorted(names))
