"""Owns OpenTelemetry spans of requests; knows no route, and imports OpenTelemetry only if it is used.

The extra `otel` installs the SDK, which reads its own environment variables for everything that is not set
here: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS and
others. Attributes follow the semantic conventions for HTTP; the service's own begin with "qa.".
"""

from collections.abc import Callable
from http import HTTPStatus
from importlib.util import find_spec

from service import __version__
from service.errors import SettingsError
from service.tracing import Record, TraceContext

_NANOSECONDS = 1_000_000_000
_PATH = "/v1/traces"  # below the base URL: OTLP/HTTP


def check_installed(endpoint: str) -> None:
    """Raise SettingsError if traces are enabled and the SDK is not installed, without importing it."""
    try:
        if not endpoint or find_spec("opentelemetry.exporter.otlp.proto.http"):
            return
    except ModuleNotFoundError:  # of a package on the way
        pass
    raise SettingsError(
        "QA_OTLP_ENDPOINT (--otlp-endpoint), or OTEL_EXPORTER_OTLP_ENDPOINT, enables traces, which need the "
        "extra otel: pip install 'qa-onnx[otel]'.",
        field="QA_OTLP_ENDPOINT",
    )


def open_spans(endpoint: str, model: str) -> Callable[[Record], None]:
    """A function that exports a request as a span with child spans, and adds the span to its record.

    A background thread exports spans in batches. Call this after forking, since a fork loses the thread.
    """
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = Resource.create({"service.name": "qa-onnx", "service.version": __version__})
    provider = TracerProvider(resource=named.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint.rstrip("/") + _PATH)))
    tracer = provider.get_tracer("service", __version__)

    def parent(context: TraceContext) -> trace.SpanContext:
        return trace.SpanContext(
            int(context.trace_id, 16),
            int(context.span_id, 16),
            is_remote=True,
            trace_flags=trace.TraceFlags(context.flags & trace.TraceFlags.SAMPLED),
            trace_state=trace.TraceState.from_header([context.state]),
        )

    def send(record: Record) -> None:
        caller = trace.NonRecordingSpan(parent(record.trace)) if record.trace else trace.INVALID_SPAN
        span = tracer.start_span(
            f"{record.method} {record.route}".rstrip(),
            trace.set_span_in_context(caller),
            trace.SpanKind.SERVER,
            {
                "http.request.method": record.method,
                "http.response.status_code": record.status,
                "qa.request_id": record.id,
                "qa.model": model,
            },
            start_time=record.arrived,
        )
        if record.route:
            span.set_attribute("http.route", record.route)
        if record.code:
            span.set_attribute("error.type", record.code)
        if record.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            span.set_status(trace.StatusCode.ERROR)
        if record.work:
            span.set_attributes({"qa.questions": record.work.questions, "qa.tokens": record.work.tokens})
            # Consecutive spans with the total time of each stage: long documents run in several batches.
            inside = trace.set_span_in_context(span)
            at = record.arrived + int((record.work.begun - record.started) * _NANOSECONDS)
            for name, seconds in record.work.stages.items():
                stage = tracer.start_span(name, inside, start_time=at)
                at += int(seconds * _NANOSECONDS)
                stage.end(at)
        span.end(record.arrived + int(record.seconds * _NANOSECONDS))
        own = span.get_span_context()
        record.trace = TraceContext(
            trace.format_trace_id(own.trace_id), trace.format_span_id(own.span_id), own.trace_flags
        )

    return send
