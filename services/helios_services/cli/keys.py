"""`helios keys`: API keys for gateways."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from helios_engine.extras import needs
from helios_services.cli.errors import UserError

if TYPE_CHECKING:
    from helios_services.gateway.guard.key_file import KeyText

KeyId = Annotated[str, typer.Argument(help="Name of the key.")]
KeysFile = Annotated[Path, typer.Argument(metavar="FILE", help="The file that gateway.api_keys_file names.")]
app = typer.Typer(no_args_is_help=True, help="Make, list, exchange and take away API keys.")


@app.command("new")
def new(
    key_id: Annotated[str, typer.Argument(help="Name of the key, for logs and for taking it away.")],
    tenant: Annotated[str, typer.Option(help="Whose jobs it sees.")],
    scope: Annotated[list[str] | None, typer.Option(help="submit, read, cancel, admin. Can be repeated.")] = None,
    account: Annotated[str, typer.Option(help="Whom its jobs are counted for; the key's id if not given.")] = "",
    weight: Annotated[float, typer.Option(help="Share of the chunks when several keys want them.")] = 1.0,
    submits_per_minute: Annotated[float | None, typer.Option(help="Quota of submissions.")] = None,
    max_queued: Annotated[int | None, typer.Option(help="Quota of queued jobs.")] = None,
    max_running: Annotated[int | None, typer.Option(help="Quota of running jobs.")] = None,
    video_minutes_per_day: Annotated[float | None, typer.Option(help="Quota of video, by UTC day.")] = None,
    max_uploads: Annotated[int | None, typer.Option(help="Quota of uploads that are kept.")] = None,
    max_upload_bytes: Annotated[int | None, typer.Option(help="Quota of their bytes.")] = None,
) -> None:
    """Make a key: its entry for gateway.api_keys_file on standard output, the key itself on standard error."""
    with needs("gateway", "helios keys"):
        import yaml
        from pydantic import ValidationError

        from helios_services.gateway.guard.caller import Scope
        from helios_services.gateway.guard.key_file import as_values
        from helios_services.gateway.guard.keys import Quotas, new_key

    names = scope or ["submit", "read", "cancel"]
    unknown = [name for name in names if name not in tuple(Scope)]
    if unknown:
        raise UserError(f"scope: {unknown[0]!r} is not allowed; allowed: {', '.join(Scope)}")
    try:
        quotas = Quotas(
            submits_per_minute=submits_per_minute,
            max_queued=max_queued,
            max_running=max_running,
            video_minutes_per_day=video_minutes_per_day,
            max_uploads=max_uploads,
            max_upload_bytes=max_upload_bytes,
        )
        terms = {"account": account, "weight": weight, "quotas": quotas}
        key, entry = new_key(key_id, tenant, frozenset(map(Scope, names)), **terms)
    except ValidationError as error:
        problem = error.errors()[0]
        raise UserError(f"{problem['loc'][0]}: {problem['input']!r}: {problem['msg']}") from None
    print(yaml.safe_dump({"keys": [as_values(entry)]}, sort_keys=False), end="")
    print(f"the key, which is not shown again: {key}", file=sys.stderr)


@app.command("ls")
def ls(file: KeysFile) -> None:
    """List the keys of a file: id, tenant, account, scopes."""
    for entry in _text(file).entries.values():
        scopes = ",".join(sorted(scope.value for scope in entry.scopes))
        print("\t".join((entry.id, entry.tenant, entry.account or entry.id, scopes)))


@app.command("rotate")
def rotate(key_id: KeyId, file: KeysFile) -> None:
    """Make the key that follows another: for its tenant and account, with its scopes and quotas. Both are good then."""
    text = _text(file)
    with needs("gateway", "helios keys"):
        from helios_services.gateway.guard.keys import new_key
    with expected_errors():
        old = text.entry(key_id)
        terms = {"account": old.account or old.id, "weight": old.weight, "quotas": old.quotas}
        key, entry = new_key(text.successor(key_id), old.tenant, old.scopes, **terms)
        text.add(entry)
    print(f"{entry.id} is good beside {key_id}; when its clients have it: helios keys revoke {key_id} {file}")
    print(f"the key, which is not shown again: {key}", file=sys.stderr)


@app.command("revoke")
def revoke(key_id: KeyId, file: KeysFile) -> None:
    """Take a key away: gateways refuse it within seconds of the file's change. Calls that have begun go on."""
    text = _text(file)
    with expected_errors():
        text.remove(key_id)
    print(f"{key_id} is taken away")


def _text(file: Path) -> "KeyText":
    with needs("gateway", "helios keys"):
        from helios_services.gateway.guard.key_file import KeyText
    with expected_errors():
        return KeyText(file)


@contextmanager
def expected_errors() -> Iterator[None]:
    """What is wrong with the file or the key is told in a line."""
    from helios_services.config import ConfigError

    try:
        yield
    except ConfigError as error:
        raise UserError(str(error)) from None
