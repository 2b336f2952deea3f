"""`helios config`: what a process with this file and this environment would run with."""

import json

import typer

from helios_engine.extras import needs
from helios_services.cli.serve import ConfigFile

app = typer.Typer(no_args_is_help=True, help="Show and check the configuration.")


@app.command("show")
def show(config: ConfigFile = None) -> None:
    """Print every setting with its value, as YAML. Passwords in URLs are left out."""
    with needs("gateway", "helios config"):
        import yaml

        from helios_services.config import load_config
        from helios_services.redaction import scrub

    values = load_config(config).model_dump(mode="json")
    print(scrub(yaml.safe_dump(values, sort_keys=False)), end="")


@app.command("check")
def check(config: ConfigFile = None) -> None:
    """Say whether the configuration is valid; if not, name each setting, its value and what is allowed."""
    with needs("gateway", "helios config"):
        from helios_services.config import load_config

    load_config(config)
    print("the configuration is valid")


@app.command("schema")
def schema() -> None:
    """Print the JSON schema of the configuration file, for editors."""
    with needs("gateway", "helios config"):
        from helios_services.config import ServiceConfig

    print(json.dumps(ServiceConfig.model_json_schema(), indent=2))
