"""The store's Lua scripts: tables that Python holds, what scripts share, and one file per change."""

from functools import cache
from importlib.resources import files

from helios_services.jobs.charge import CHUNK_MS, DEFAULT_FPS
from helios_services.jobs.codec import SUMMARY
from helios_services.jobs.records import Priority
from helios_services.jobs.state import DEAD_LETTERED, LEASED, MAX_DEAD_LETTERS, SUSPECT_LOSSES, TRANSITIONS

SHARED = ("prelude", "storage", "output", "uploads", "sharing", "ending", "sweeping")
"""Files that every script begins with, each built on those before."""
WATERMARK = 0.85
"""The share of Redis' maxmemory beyond which no job is taken up. What runs has the rest to end in."""
JOB_BYTES = 512
"""What a job takes in a page besides the values of its record."""


@cache
def source(name: str) -> str:
    """The complete text of a script."""
    folder = files("helios_services.jobs") / "lua"
    return "\n".join([_tables(), *((folder / f"{part}.lua").read_text() for part in (*SHARED, name))])


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
            f"local WATERMARK = {WATERMARK}",
            f"local CHUNK_MS, DEFAULT_FPS, JOB_BYTES = {CHUNK_MS}, {DEFAULT_FPS}, {JOB_BYTES}",
            f"local SUMMARY = {{{', '.join(map(repr, SUMMARY))}}}",
        )
    )


def _set(names: frozenset[str]) -> str:
    return ", ".join(f"{name}=true" for name in sorted(names))
