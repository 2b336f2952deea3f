"""An OTLP collector that keeps the spans it is sent."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services

PATIENCE_S = 120.0


class Collector(services.TraceServiceServicer):
    """Spans by trace id (hexadecimal)."""

    def __init__(self) -> None:
        self._spans: dict[str, list[tuple[str, Any]]] = {}
        self.port = 0

    def Export(self, request: Any, context: Any) -> Any:
        """Called by exporters."""
        for resource in request.resource_spans:
            names = {entry.key: entry.value.string_value for entry in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self._spans.setdefault(span.trace_id.hex(), []).append((names["service.name"], span))
        return messages.ExportTraceServiceResponse()

    def trace(self, trace_id: str, complete: Callable[[list[Any]], bool]) -> list[tuple[str, Any]]:
        """Service and span of a trace, once `complete` says so of its spans."""
        deadline = time.monotonic() + PATIENCE_S
        while not complete([span for _, span in self._spans.get(trace_id, [])]):
            assert time.monotonic() < deadline, [span.name for _, span in self._spans.get(trace_id, [])]
            time.sleep(0.05)
        return list(self._spans[trace_id])


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on loopback."""
    collector, server = Collector(), grpc.server(ThreadPoolExecutor(2))
    services.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    collector.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()
