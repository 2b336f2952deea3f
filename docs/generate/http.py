"""The page of the HTTP API, from the description that the gateway gives of itself (/openapi.json)."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from helios_services.gateway.http.app import ROOMS
from helios_services.gateway.http.openapi import METHODS, describe

HEAD = """# HTTP API

Written from what a gateway answers at `/openapi.json`. How the calls are used, with examples:
[Use it from anywhere](../http.md).

"""


def page() -> str:
    """Markdown: every call with its parameters and the fields of its body."""
    app = FastAPI(title="Helios Serve", version="1")
    for room in ROOMS:
        app.include_router(room.router)
    describe(app)
    parts = [HEAD]
    for path, operations in app.openapi()["paths"].items():
        for method in METHODS:
            if method in operations:
                parts += _call(method, path, operations[method])
    return "".join(parts)


def _call(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"## {method.upper()} {path}\n\n{' '.join(operation.get('description', '').split())}\n\n"
    rows = list(_rows(operation))
    if rows:
        yield "| | in | |\n|---|---|---|\n"
        yield from rows
        yield "\n"


def _rows(operation: dict[str, Any]) -> Iterator[str]:
    for parameter in operation.get("parameters", ()):
        text = parameter.get("description") or parameter["schema"].get("description", "")
        yield _row(parameter["name"], parameter["in"], text, parameter["schema"], parameter.get("required", False))
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = content["schema"]
        for name, field in schema.get("properties", {}).items():
            yield _row(name, media_type, field.get("description", ""), field, name in schema.get("required", ()))


def _row(name: str, place: str, text: str, schema: dict[str, Any], required: bool) -> str:
    said = [" ".join(text.split()), "Required." if required else "", *_bounds(schema)]
    return f"| `{name}` | {place} | {' '.join(part for part in said if part)} |\n"


def _bounds(schema: dict[str, Any]) -> Iterator[str]:
    if "enum" in schema:
        yield f"One of {', '.join(map(str, schema['enum']))}."
    if "maximum" in schema:
        yield f"{schema.get('minimum', 'At most')} to {schema['maximum']}."
    if "maxLength" in schema:
        yield f"At most {schema['maxLength']:,} characters."
    if schema.get("default") not in (None, ""):
        yield f"Default {schema['default']}."
