"""Structured logs on standard error: JSON lines, or colours on a terminal. What may stand in them: redaction.py."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from helios_services.redaction import outline, presentable
from helios_services.telemetry.tracing import log_context


def configure_logging(level: str) -> None:
    """Sets up structlog for this process. `level`: debug, info, warning or error.

    Warnings of libraries (the logging module's) are written the same way, unless the process has a handler for them.
    """
    renderer: structlog.typing.Processor
    renderer = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    debug = level == "debug"
    redact = Redact(debug=debug)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        log_context,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if debug else structlog.processors.ExceptionRenderer(_outline),
    ]
    structlog.configure(
        processors=[*shared, redact, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[first_line, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, redact, renderer],
        )
    )
    handler.setLevel(logging.WARNING)
    logging.lastResort = handler


class Redact:
    """A structlog processor: values as redaction.py allows them, exceptions without their messages unless debugging."""

    def __init__(self, *, debug: bool) -> None:
        self._debug = debug

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Called for each event."""
        for name, value in event.items():
            event[name] = presentable(name, value, debug=self._debug)
        return event


def _outline(exc_info: structlog.typing.ExcInfo) -> str:
    return outline(exc_info[1])


def first_line(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The first line of a library's message. asyncio's go on with an exception's repr, which may quote a request."""
    event["event"] = str(event["event"]).partition("\n")[0]
    return event
