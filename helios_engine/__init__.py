"""Helios' model and sampling as a plain library: torch only, no service code.

Names are imported on first use, so that `helios_engine.request` costs no torch import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from helios_engine.extras import needs

if TYPE_CHECKING:
    from helios_engine.errors import CheckpointError, InvalidField
    from helios_engine.pipeline import Chunk, HeliosPipeline
    from helios_engine.request import GenerationRequest

_HOMES = {
    "CheckpointError": "helios_engine.errors",
    "InvalidField": "helios_engine.errors",
    "Chunk": "helios_engine.pipeline",
    "HeliosPipeline": "helios_engine.pipeline",
    "GenerationRequest": "helios_engine.request",
}

__all__ = ["CheckpointError", "Chunk", "GenerationRequest", "HeliosPipeline", "InvalidField"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needs("engine", f"helios_engine.{name}"):
        return getattr(import_module(_HOMES[name]), name)
