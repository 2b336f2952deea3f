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
    """Markdown: a heading for each command, with its usage and a table of what it takes."""
    return HEAD + "".join(_command("helios", typer.main.get_command(app)))


def _command(name: str, command: Any) -> Iterator[str]:
    commands = getattr(command, "commands", {})
    if not commands:
        arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
        words = [f"{argument.name.upper()}{'…' if argument.nargs != 1 else ''}" for argument in arguments]
        yield f"## {name}\n\n{_text(command.help)}\n\n```text\n{' '.join([name, *words, '[OPTIONS]'])}\n```\n\n"
        yield "| option | | default |\n|---|---|---|\n"
        yield from map(_parameter, command.params)
        yield "\n"
    for part, inner in commands.items():
        yield from _command(f"{name} {part}", inner)


def _parameter(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"| `{parameter.name.upper()}` | {_text(parameter.help)} | must be given |\n"
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    variable = f" Variable: `{parameter.envvar}`." if parameter.envvar else ""
    default = parameter.default
    shown = "" if default in (None, "", False) or callable(default) else f"`{default}`"
    return f"| {names} | {_text(parameter.help)}{variable} | {'must be given' if parameter.required else shown} |\n"


def _text(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")
