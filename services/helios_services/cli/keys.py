"""`helios keys`: API keys for gateways."""

import sys
from typing import Annotated

import typer

from helios_engine.extras import needs
from helios_services.cli.errors import UserError

app = typer.Typer(no_args_is_help=True, help="Make API keys.")


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
    values = entry.model_dump(mode="json", exclude_defaults=True)
    values["scopes"] = sorted(scope.value for scope in entry.scopes)
    print(yaml.safe_dump({"keys": [values]}, sort_keys=False), end="")
    print(f"the key, which is not shown again: {key}", file=sys.stderr)
