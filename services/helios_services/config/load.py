"""Reads the configuration from a file and the environment."""

import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from helios_services.config.section import ConfigError
from helios_services.config.service import ServiceConfig
from helios_services.redaction import scrub

_ALIASES = {"HELIOS_REDIS_URL": "HELIOS_REDIS__URL"}
_PREFIX = "HELIOS_"
_NOT_SETTINGS = {
    "HELIOS_CONFIG",
    "HELIOS_SERVER",
    "HELIOS_API_KEY",
    "HELIOS_API_KEY_FILE",
    "HELIOS_TLS",
    "HELIOS_CA_FILE",
    "HELIOS_KERNELS",
}
"""Variables of the command line, of clients and of the kernels."""


def load_config(path: str | Path | None = None, environ: dict[str, str] | None = None) -> ServiceConfig:
    """Builds the configuration from a file (default: $HELIOS_CONFIG, if set) and the environment.

    Raises ConfigError naming every field that is unknown or out of bounds.
    """
    env = dict(os.environ if environ is None else environ)
    source = path or env.get("HELIOS_CONFIG")
    tree = _read_file(Path(source)) if source else {}
    for name, value in sorted(env.items()):
        if name.startswith(_PREFIX) and name not in _NOT_SETTINGS:
            _assign(tree, _ALIASES.get(name, name)[len(_PREFIX) :].lower().split("__"), value)
    try:
        config = ServiceConfig.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(_problem(e["loc"], e["input"], e["msg"]) for e in error.errors(include_url=False))
        raise ConfigError(f"configuration: {problems}") from None
    return config.model_copy(update={"state_dir": config.state_dir.expanduser().absolute()})


def _problem(location: tuple[int | str, ...], given: Any, message: str) -> str:
    """Values of the section `redis` are not shown: a password may stand in the wrong place."""
    named = ".".join(map(str, location))
    shown = "[redacted]" if location[:1] == ("redis",) and location != ("redis", "namespace") else repr(given)
    return f"{named}: {scrub(shown)} ({message})"


def _read_file(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"configuration file {path}: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"configuration file {path}: must hold a mapping, holds {type(tree).__name__}")
    return tree


def _assign(tree: dict[str, Any], path: list[str], value: str) -> None:
    for name in path[:-1]:
        child = tree.setdefault(name, {})
        if not isinstance(child, dict):
            raise ConfigError(f"configuration: {name}: must be a mapping, is {child!r}")
        tree = child
    tree[path[-1]] = value
