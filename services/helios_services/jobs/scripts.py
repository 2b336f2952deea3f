"""The store's Lua scripts: the state machine's table, the prelude and one file per change."""

from functools import cache
from importlib.resources import files

from helios_services.jobs.state import LEASED, TRANSITIONS


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
    leased = ", ".join(f"{state}=true" for state in sorted(LEASED))
    return f"local TRANSITIONS = {{{rows}}}\nlocal LEASED = {{{leased}}}"
