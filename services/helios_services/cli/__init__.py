"""The `helios` command. Commands live in one module each and import what they need when they run."""

import sys
from importlib.metadata import entry_points, version
from importlib.util import find_spec
from typing import Annotated

import typer

from helios_services.cli import checkpoint, config, generate, jobs, keys, plan, serve
from helios_services.cli.errors import user_errors

app = typer.Typer(
    name="helios",
    help="Helios Serve: real-time long-video generation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"helios {version('helios-serve')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


app.command("up")(serve.up)
app.command("gateway")(serve.gateway)
app.command("worker")(serve.worker)
app.command("generate")(generate.generate)
app.add_typer(jobs.app, name="jobs")
app.add_typer(keys.app, name="keys")
app.add_typer(config.app, name="config")
app.command("plan")(plan.plan)
app.command("tiny")(checkpoint.tiny)
app.command("check")(checkpoint.check)
for command in entry_points(group="helios.commands"):  # packages above this one add theirs: training does
    if find_spec(command.module.partition(".")[0]) is not None:  # the images hold no training
        command.load()(app)


def main() -> None:
    """Entry point. Expected errors end with one line on standard error and status 1, without a traceback."""
    with user_errors():
        app()
    sys.exit(0)
