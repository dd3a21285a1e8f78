"""Spans by OpenTelemetry, sent by OTLP over gRPC. The one module that knows its packages.

Those are the extra ``tracing``, and imported where traces are asked for. What the exporter needs besides (headers,
certificates) it reads from OpenTelemetry's own variables, ``OTEL_EXPORTER_OTLP_…``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import INVALID_SPAN, Link, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace import Span as LibrarySpan
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from encoder.call_context import Headers, Kind, Span, Value

# What waits to be sent: more is dropped, and no call waits for it.
QUEUE_SPANS_MAX = 4096
EXPORT_PERIOD_MS = 1000
EXPORT_TIMEOUT_MS = 5000

_KINDS = {Kind.INTERNAL: SpanKind.INTERNAL, Kind.SERVER: SpanKind.SERVER, Kind.CLIENT: SpanKind.CLIENT}
_W3C = TraceContextTextMapPropagator()
_NO_CONTEXT = Context()


class Tracing:
    """Begins traces (:attr:`origin`) and sends them; :meth:`close` sends what is left."""

    def __init__(self, process: str, version: str, endpoint: str, ratio: float) -> None:
        """``ratio`` of the traces that begin here are sent; those that came from elsewhere as their beginning said."""
        resource = Resource.create(
            {"service.name": f"mamba-search-{process}", "service.namespace": "mamba-search", "service.version": version}
        )
        self._provider = TracerProvider(
            resource=resource, sampler=ParentBased(TraceIdRatioBased(ratio)), shutdown_on_exit=False
        )
        exporter = OTLPSpanExporter(
            endpoint=endpoint, insecure=endpoint.startswith("http://"), timeout=EXPORT_TIMEOUT_MS / 1000
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=QUEUE_SPANS_MAX,
                schedule_delay_millis=EXPORT_PERIOD_MS,
                export_timeout_millis=EXPORT_TIMEOUT_MS,
            )
        )
        self.origin: Span = _Traced(self._provider.get_tracer("mambasearch", version), INVALID_SPAN)

    def flush(self) -> None:
        """Send what waits, for at most as long as one sending may take."""
        self._provider.force_flush(EXPORT_TIMEOUT_MS)

    def close(self) -> None:
        """Send what is left, and end."""
        self._provider.shutdown()


class _Traced:
    """A span of the library as one of ours; the library's own idea of the current span is not used."""

    def __init__(self, tracer: Tracer, span: LibrarySpan) -> None:
        self._tracer = tracer
        self._span = span

    def child(
        self,
        name: str,
        kind: Kind = Kind.INTERNAL,
        attributes: Mapping[str, Value] | None = None,
        links: Sequence[Span] = (),
    ) -> Span:
        return self._begin(name, set_span_in_context(self._span, _NO_CONTEXT), kind, attributes, links)

    def root(self, name: str, attributes: Mapping[str, Value] | None = None, links: Sequence[Span] = ()) -> Span:
        return self._begin(name, _NO_CONTEXT, Kind.INTERNAL, attributes, links)

    def accept(self, name: str, headers: Headers) -> Span:
        return self._begin(name, _W3C.extract(dict(headers), _NO_CONTEXT), Kind.SERVER, None, ())

    def set(self, name: str, value: Value) -> None:
        self._span.set_attribute(name, value)

    def headers(self) -> Headers:
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, set_span_in_context(self._span, _NO_CONTEXT))
        return tuple(carrier.items())

    def end(self, failure: str = "") -> None:
        if failure:
            self._span.set_status(Status(StatusCode.ERROR, failure))
        self._span.end()

    def _begin(
        self,
        name: str,
        context: Context,
        kind: Kind,
        attributes: Mapping[str, Value] | None,
        links: Sequence[Span],
    ) -> Span:
        linked = [Link(link._span.get_span_context()) for link in links if isinstance(link, _Traced)]
        span = self._tracer.start_span(name, context, kind=_KINDS[kind], attributes=attributes, links=linked)
        return _Traced(self._tracer, span)
