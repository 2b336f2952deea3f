"""Reads the configuration from a file and the environment."""

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from helios_services.config.names import from_text, setting, unknown
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
    "HELIOS_CERTIFICATE_FILE",
    "HELIOS_KEY_FILE",
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
    variables: dict[tuple[str, ...], str] = {}
    for name, text in sorted(env.items()):
        if name.startswith(_PREFIX) and name not in _NOT_SETTINGS:
            place = tuple(_ALIASES.get(name, name)[len(_PREFIX) :].lower().split("__"))
            variables[place] = name
            try:
                _assign(tree, place, from_text(ServiceConfig, place, text))
            except ValueError as error:
                raise ConfigError(f"configuration: {'.'.join(place)} ({name}): {error}") from None
    try:
        config = ServiceConfig.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(_problem(each, variables) for each in _without_kinds(error.errors(include_url=False)))
        raise ConfigError(f"configuration: {problems}") from None
    return config.model_copy(update={"state_dir": config.state_dir.expanduser().absolute()})


def _without_kinds(errors: Sequence[ErrorDetails]) -> Iterator[ErrorDetails]:
    """One error for each setting that may be of several kinds: pydantic has one for each kind, with its name behind."""
    for place, of_place in groupby(errors, lambda error: setting(ServiceConfig, tuple(map(str, error["loc"])))):
        first, *others = of_place
        if others:
            first = first | {"loc": place, "msg": "; or ".join(each["msg"] for each in (first, *others))}
        yield first


def _problem(error: ErrorDetails, variables: Mapping[tuple[str, ...], str]) -> str:
    """One problem in words.

    Values of the section `redis`, and of what is no setting, are not shown: a password may stand in the wrong place.
    """
    location = tuple(map(str, error["loc"]))
    named = ".".join(location)
    setters = [name for place, name in variables.items() if place[: len(location)] == location[: len(place)]]
    if len(setters) == 1 and location:
        named += f" ({setters[0]})"
    if error["type"] == "extra_forbidden":
        return f"{named} {unknown(ServiceConfig, location)}"
    hidden = location[:1] == ("redis",) and location != ("redis", "namespace")
    shown = "[redacted]" if hidden else scrub(repr(error["input"]))
    return f"{named}: {shown} ({error['msg']})"


def _read_file(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"configuration file {path}: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"configuration file {path}: must hold a mapping, holds {type(tree).__name__}")
    return tree


def _assign(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        child = tree.setdefault(name, {})
        if not isinstance(child, dict):
            raise ValueError(f"{name} must be a mapping, is {child!r}")
        tree = child
    tree[path[-1]] = value
