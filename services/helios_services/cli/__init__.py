"""The `helios` command. Commands live in one module each and import what they need when they run."""

import sys

import typer

from helios_services.cli import checkpoint, config, generate, jobs, keys, serve
from helios_services.cli.errors import user_errors

app = typer.Typer(
    name="helios",
    help="Helios Serve: real-time long-video generation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("up")(serve.up)
app.command("gateway")(serve.gateway)
app.command("worker")(serve.worker)
app.command("generate")(generate.generate)
app.add_typer(jobs.app, name="jobs")
app.add_typer(keys.app, name="keys")
app.add_typer(config.app, name="config")
app.command("tiny")(checkpoint.tiny)
app.command("check")(checkpoint.check)


def main() -> None:
    """Entry point. Expected errors end with one line on standard error and status 1, without a traceback."""
    with user_errors():
        app()
    sys.exit(0)
