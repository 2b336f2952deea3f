"""The API's description, at /openapi.json."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from helios_services.gateway.http.schemas import ERROR, JSON

METHODS = ("get", "head", "post", "delete")
UNUSED = ("HTTPValidationError", "ValidationError")


def describe(app: FastAPI) -> None:
    """Says of every call that it takes an API key, and that it is refused in one envelope."""
    made: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not made:
            made.update(_described(app))
        return made

    app.openapi = openapi  # type: ignore[method-assign]


def _described(app: FastAPI) -> dict[str, Any]:
    text = "Video generation in the dialect of OpenAI's clients, with events and HLS. docs/http.md tells the rest."
    whole = get_openapi(title=app.title, version=app.version, description=text, routes=app.routes)
    components = whole.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in UNUSED:
        schemas.pop(name, None)
    schemas["Error"] = ERROR
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}}
    whole["security"] = [{"key": []}, {}]
    refused = {"description": "Refused.", "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}
    for operations in whole["paths"].values():
        for method in METHODS:
            if method in operations:
                responses = operations[method]["responses"]
                responses.pop("422", None)
                responses["default"] = refused
    return whole
