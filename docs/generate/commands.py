"""The page of the command line, from the command itself."""

from collections.abc import Iterator
from typing import Any

import typer

from helios_services.cli import app

HEAD = """# Command line

`pip install helios-serve` installs `helios`. What talks to a server works with that alone. The other commands name the
extra that they need. Expected errors are one line on standard error, and exit status 1.

"""


def page() -> str:
    """Markdown: a heading for each command, with its usage and what it takes."""
    return HEAD + "".join(_command("helios", typer.main.get_command(app)))


def _command(name: str, command: Any) -> Iterator[str]:
    commands = getattr(command, "commands", {})
    if not commands:
        arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
        words = [f"{argument.name.upper()}{'…' if argument.nargs != 1 else ''}" for argument in arguments]
        yield f"## {name}\n\n{_text(command.help)}\n\n```text\n{' '.join([name, *words, '[OPTIONS]'])}\n```\n\n"
        yield from map(_parameter, command.params)
    for part, inner in commands.items():
        yield from _command(f"{name} {part}", inner)


def _parameter(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`\n:   {_text(parameter.help)}\n\n"
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    notes = [_text(parameter.help)]
    if parameter.required:
        notes.append("Must be given.")
    elif parameter.default not in (None, "", False) and not callable(parameter.default):
        notes.append(f"Default: `{parameter.default}`.")
    if parameter.envvar:
        notes.append(f"Variable: `{parameter.envvar}`.")
    return f"{names}\n:   {' '.join(notes)}\n\n"


def _text(text: str | None) -> str:
    return " ".join((text or "").split())
