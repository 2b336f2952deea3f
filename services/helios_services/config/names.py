"""The tree of settings: what a name stands for, and which one was meant by a name that stands for nothing."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import yaml

from helios_services.config.section import Section


def unknown(root: type[Section], path: Sequence[str]) -> str:
    """Why the path is no setting, and what was perhaps meant: a part of a message."""
    *above, name = path
    section = _section(root, above)
    near = get_close_matches(name, section.model_fields, n=1) or [each for each in section.model_fields if name in each]
    if near:
        return f"is not a setting; did you mean {'.'.join([*above, near[0]])}?"
    leaves = {place[-1]: ".".join(place) for place in reversed(list(_places(root)))}  # of equal ones, the first
    elsewhere = get_close_matches(name, leaves, n=1, cutoff=0.8)
    if elsewhere:
        return f"is not a setting; did you mean {leaves[elsewhere[0]]}?"
    return f"is not a setting; allowed: {', '.join(section.model_fields)}"


def from_text(root: type[Section], path: Sequence[str], text: str) -> Any:
    """The value that a text stands for, where a setting takes a list, a mapping or nothing.

    A list is written with commas or as YAML, a mapping as YAML, nothing as null. Raises ValueError.
    """
    kinds = set(_kinds(root, path))
    if NoneType in kinds and text.strip() == "null":
        return None
    if tuple in kinds and not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    if kinds & {tuple, dict}:
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            raise ValueError("must be a list or a mapping as YAML writes it") from None
    return text


def setting(root: type[Section], path: Sequence[str]) -> tuple[str, ...]:
    """The part of a path that names a setting of several kinds, one of which is "auto"; of others the whole path."""
    for end in range(1, len(path) + 1):
        field = _section(root, path[: end - 1]).model_fields.get(path[end - 1])
        if field is None:
            break
        if any(get_origin(kind) is Literal for kind in get_args(field.annotation)):
            return tuple(path[:end])
    return tuple(path)


def _section(root: type[Section], path: Sequence[str]) -> type[Section]:
    """The section at the path, or the one above it that there is."""
    for name in path:
        field = root.model_fields.get(name)
        if field is None or not _is_section(field.annotation):
            break
        root = field.annotation  # type: ignore[assignment]
    return root


def _kinds(root: type[Section], path: Sequence[str]) -> Iterator[Any]:
    """The types that the setting at the path may have, without their parameters."""
    field = _section(root, path[:-1]).model_fields.get(path[-1])
    if field is None:
        return
    alternatives = [field.annotation] if get_origin(field.annotation) in (tuple, dict) else get_args(field.annotation)
    for kind in alternatives or [field.annotation]:
        yield get_origin(kind) or kind


def _places(section: type[Section], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all settings."""
    for name, field in section.model_fields.items():
        yield (*above, name)
        if _is_section(field.annotation):
            yield from _places(field.annotation, (*above, name))  # type: ignore[arg-type]


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)
