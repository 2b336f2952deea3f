"""The page of settings, from the classes of the configuration and the strings below their fields."""

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from helios_services.config import ServiceConfig

HEAD = """# Settings

A setting is read from the YAML file that `--config` or `HELIOS_CONFIG` names, and from the environment, which has the
last word. The variable of `gateway.port` is `HELIOS_GATEWAY__PORT`: two underscores for each dot. An unknown name, or a
value out of bounds, stops the command before anything starts. The message names the setting, the value and what is
allowed.

```yaml
gateway: {port: 50052}
jobs: {max_queued: 100}
```

"""


def page() -> str:
    """Markdown: a heading for each section, an entry with an anchor for each setting."""
    sections: dict[str, type[BaseModel]] = {}
    top = []
    for name, field in ServiceConfig.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            sections[name] = kind
        else:
            top.append(_entry(name, field, documented(ServiceConfig)))
    parts = [HEAD, "## At the top\n\n", *top]
    for name, kind in sections.items():
        parts += [f"## {name} {{ #{name} }}\n\n{inspect.getdoc(kind)}\n\n", *_entries(name, kind)]
    return "".join(parts)


def documented(kind: type[BaseModel]) -> dict[str, str]:
    """What stands below each field, of the class and of those that it inherits from."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            found |= dict(_strings_below(base))
    return found


def _strings_below(kind: type[BaseModel]) -> Iterator[tuple[str, str]]:
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    for field, below in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            yield field.target.id, " ".join(below.value.value.split())


def _entries(prefix: str, kind: type[BaseModel]) -> Iterator[str]:
    texts = documented(kind)
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _entries(f"{prefix}.{name}", inner)
        else:
            yield _entry(f"{prefix}.{name}", field, texts)


def _entry(name: str, field: FieldInfo, texts: dict[str, str]) -> str:
    text = texts.get(name.rpartition(".")[2], "")
    return f"`{name}`{{ #{name} }}\n:   {text}<br>{_kind(field)}; default: {_default(field)}\n\n"


def _kind(field: FieldInfo) -> str:
    return " ".join([_type(field.annotation), *_bounds(field.metadata)])


def _bounds(metadata: Iterable[Any]) -> list[str]:
    bounds = []
    for entry in metadata:
        for sign, name in ((">", "gt"), ("≥", "ge"), ("<", "lt"), ("≤", "le")):
            if (bound := getattr(entry, name, None)) is not None:
                bounds.append(f"{sign} {bound:,}" if isinstance(bound, int) else f"{sign} {bound:g}")
        if (pattern := getattr(entry, "pattern", None)) is not None:
            bounds.append(f"`{pattern}`")
    return bounds


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) is Annotated:
        kind, *details = get_args(annotation)
        inner = [entry for detail in details if isinstance(detail, FieldInfo) for entry in detail.metadata]
        return " ".join([_type(kind), *_bounds(inner)])
    if annotation is type(None):
        return "null"
    arguments = [argument for argument in get_args(annotation) if argument is not ...]
    if get_origin(annotation) is tuple and ... in get_args(annotation):
        return f"list of {_type(arguments[0])}"
    if get_origin(annotation) is tuple:
        return f"[{', '.join(map(_type, arguments))}]"
    if get_origin(annotation) is dict:
        return f"mapping of {_type(arguments[0])} to {_type(arguments[1])}"
    if arguments:
        return " or ".join(map(_type, arguments))
    plain = {"str": "text", "bool": "true or false", "float": "number", "int": "integer", "Path": "folder"}
    return plain.get(annotation.__name__, str(annotation.__name__))


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "must be given"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"`{value}`".lower()
    if isinstance(value, int):
        return f"`{value:,}`".replace(",", "_")
    if isinstance(value, float):
        return f"`{value:g}`"
    if value in ("", (), {}):
        return "empty"
    return f"`{list(map(list, value))}`" if isinstance(value, tuple) else f"`{value}`"
