"""`helios tiny` and `helios check`."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from helios_engine.errors import CheckpointError
from helios_engine.extras import needs
from helios_services.cli.errors import UserError

Folder = Annotated[Path, typer.Argument(help="Checkpoint folder.")]


def tiny(
    directory: Folder,
    variant: Annotated[str, typer.Option(help="base, mid or distilled.")] = "distilled",
    seed: Annotated[int, typer.Option(help="Seed of the weights.", min=0)] = 0,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")] = False,
) -> None:
    """Write a tiny random checkpoint in the published layout."""
    with needs("engine", "helios tiny"):
        from helios_engine.loading.tiny import write_tiny

    if variant not in ("base", "mid", "distilled"):
        raise UserError(f"variant: {variant!r} is not allowed; allowed: base, mid, distilled")
    if directory.exists() and (not directory.is_dir() or (any(directory.iterdir()) and not force)):
        raise UserError(f"{directory}: exists and is not an empty folder (--force writes into a folder)")
    write_tiny(directory, variant=variant, seed=seed)  # type: ignore[arg-type]
    print(f"wrote a tiny {variant} checkpoint to {directory}")


def check(
    directory: Folder,
    sha256: Annotated[bool, typer.Option("--sha256", help="Also hash every file that SHA256SUMS in it lists.")] = False,
) -> None:
    """Validate a checkpoint from its headers, without loading the weights."""
    from rich.console import Console
    from rich.table import Table

    with needs("engine", "helios check"):
        from helios_engine.checkpoint.manifest import check_manifest
        from helios_engine.loading.check import check_checkpoint

    checks = (check_checkpoint, check_manifest) if sha256 else (check_checkpoint,)
    report, *manifests = _all_of(checks, directory)
    table = Table("component", "tensors", "parameters", "bytes", "dtypes", title=f"{report.variant} checkpoint, sound")
    for part in report.components:
        table.add_row(part.name, f"{part.tensors:,}", f"{part.parameters:,}", f"{part.bytes:,}", ", ".join(part.dtypes))
    Console().print(table)
    for manifest in manifests:
        print(f"SHA256SUMS: {manifest.files:,} files with {manifest.bytes:,} bytes are as listed")
        for name in manifest.unlisted:
            print(f"SHA256SUMS: {name} is not listed")


def _all_of(checks: Iterable[Callable[[Path], Any]], directory: Path) -> list[Any]:
    """The reports of all checks. Raises CheckpointError with the problems of every one that fails."""
    reports, problems = [], []
    for check_one in checks:
        try:
            reports.append(check_one(directory))
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError("\n".join(problems))
    return reports
