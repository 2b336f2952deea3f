"""Traces: one from the client's call through the queue to every stage of every chunk and its delivery.

W3C trace context comes in with a call's metadata, is kept in the job's record, and is where the dispatcher's spans of
the job, its chunks and their stages hang. Without an endpoint nothing is recorded, and contexts are passed on.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from helios_services.config import TracingConfig

PROPAGATOR = TraceContextTextMapPropagator()
HEADERS = PROPAGATOR.fields
NS = 1_000_000_000


def configure_tracing(config: TracingConfig, service: str) -> None:
    """Exports this process's spans over OTLP/gRPC, if an endpoint is configured."""
    if not config.otlp_endpoint:
        return
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    provider = TracerProvider(
        resource=Resource.create({"service.name": service}),
        sampler=ParentBased(TraceIdRatioBased(config.sample_ratio)),
    )
    exporter = OTLPSpanExporter(endpoint=config.otlp_endpoint)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=int(config.export_delay_s * 1000)))
    trace.set_tracer_provider(provider)


def incoming(metadata: Iterable[tuple[str, str | bytes]]) -> Context:
    """The context that a call's metadata carries."""
    carrier = {name: value for name, value in metadata if name in HEADERS and isinstance(value, str)}
    return PROPAGATOR.extract(carrier)


def carried() -> str:
    """The current span's context, to be kept with a job; empty for none."""
    carrier: MutableMapping[str, str] = {}
    PROPAGATOR.inject(carrier)
    return carrier.get("traceparent", "")


def remote(traceparent: str) -> Context:
    """The context that `carried` gave."""
    return PROPAGATOR.extract({"traceparent": traceparent})


def start(name: str, context: Context | None = None, *, start_s: float | None = None, **attributes: Any) -> Span:
    """A span below `context` (the current one if None). start_s: Unix seconds, for one that began earlier."""
    tracer = trace.get_tracer("helios")
    begin = None if start_s is None else int(start_s * NS)
    return tracer.start_span(name, context, attributes=_named(attributes), start_time=begin)


def type_name(error: Exception) -> str:
    """What a span says of an exception: its message may quote a prompt."""
    return type(error).__name__


@contextmanager
def span(
    name: str, context: Context | None = None, *, reason: Callable[[Exception], str] = type_name, **attributes: Any
) -> Iterator[Span]:
    """A span around a block. reason: what it says of an exception that ends the block."""
    opened = start(name, context, **attributes)
    try:
        with entered(opened, reason):
            yield opened
    finally:
        opened.end()


@contextmanager
def entered(opened: Span, reason: Callable[[Exception], str] = type_name) -> Iterator[None]:
    """Makes a span the current one. Of an exception that ends the block, it says no more than `reason`."""
    with trace.use_span(opened, record_exception=False, set_status_on_exception=False):
        try:
            yield
        except Exception as error:
            failed(opened, reason(error))
            raise


@contextmanager
def ended_on_error(opened: Span) -> Iterator[None]:
    """Ends a span if the block raises; otherwise whoever goes on with it does."""
    try:
        yield
    except BaseException:
        opened.end()
        raise


def failed(opened: Span, reason: str) -> None:
    """Marks a span as failed."""
    opened.set_status(StatusCode.ERROR, reason)


def log_context(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """A structlog processor: trace and span id of the current span."""
    current = trace.get_current_span().get_span_context()
    if current.is_valid:
        event.setdefault("trace_id", f"{current.trace_id:032x}")
        event.setdefault("span_id", f"{current.span_id:016x}")
    return event


def _named(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {f"helios.{name}": value for name, value in attributes.items()}
