"""`helios plan`: what `helios up` would run where, on this machine or on another."""

from typing import TYPE_CHECKING, Annotated

import typer

from helios_engine.extras import needs
from helios_services.cli.serve import ConfigFile, with_values

if TYPE_CHECKING:
    from helios_services.planning.plan import Plan


def plan(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint folder or Hub id (or HELIOS_MODEL__CHECKPOINT).")] = "",
    config: ConfigFile = None,
    gpus: Annotated[
        str, typer.Option(help="Number x GB of GPUs like an H100, as 2x80; 0 for none. Unset: those found here.")
    ] = "",
    memory: Annotated[float | None, typer.Option(help="Host memory in GB. Unset: that of this machine.", min=1)] = None,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="Print the settings that give the same, and no table.")
    ] = False,
) -> None:
    """Show what runs where on a machine, what it holds, and why."""
    with needs("engine", "helios plan"):
        from helios_engine.planning.machine import GB, described, this_machine
        from helios_services.cli.errors import UserError
        from helios_services.config import load_config, with_variant
        from helios_services.planning.plan import needs_of, variant_of
        from helios_services.planning.plan import plan as planned
        from helios_services.planning.table import as_yaml as written
        from helios_services.planning.table import print_plan

    settings = with_values(load_config(config), "model", checkpoint=checkpoint or None)
    if not settings.model.checkpoint:
        raise UserError("checkpoint: is empty; allowed: a checkpoint folder or Hub id (or HELIOS_MODEL__CHECKPOINT)")
    settings = with_variant(settings, variant_of(settings))
    host_bytes = None if memory is None else int(memory * GB)
    machine = described(gpus, host_bytes) if gpus else this_machine(host_bytes)
    found = planned(settings, needs_of(settings), machine)
    if as_yaml:
        print(written(found), end="")
        return
    from rich.console import Console

    print_plan(found, Console())


def show(found: "Plan") -> None:
    """Prints a plan on standard error: what the commands print on standard output is for programs, too."""
    from rich.console import Console

    from helios_services.planning.table import print_plan

    print_plan(found, Console(stderr=True))
