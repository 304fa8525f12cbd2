"""OpenTelemetry traces, where an OTLP endpoint is given and only there.

A span a request, with one for each phase (``serving.phases``), made when the request is over: what
is not sampled costs nothing. Spans go out by HTTP, in a thread of the exporter's own; what the
endpoint does not take is dropped.
"""

import threading
import time
from typing import TYPE_CHECKING, Any

from serving.phases import Phases
from serving.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

__all__ = ["Traces"]

_END_S = 1.0  # for what has not been sent when the service ends


class Traces:
    """What is sampled of the requests of a worker.

    Args:
        settings: ``otlp_endpoint``, empty for no traces; ``trace_ratio``.
    """

    def __init__(self, settings: Settings) -> None:
        self._provider: TracerProvider | None = None
        if settings.otlp_endpoint:
            self._provider = _provider(settings.otlp_endpoint, settings.trace_ratio)
            self._tracer = self._provider.get_tracer("ptft.serving")
            # both clocks at once: phases are measured by one, spans stand in the other
            self._offset_ns = time.time_ns() - time.perf_counter_ns()

    @property
    def on(self) -> bool:
        """Whether there are any."""
        return self._provider is not None

    def record(
        self, scope: Any, started: float, status: int, phases: Phases, request_id: str
    ) -> None:
        """A request that is over.

        Args:
            scope: ASGI's: method, route and the client's ``traceparent``.
            started: when it came, as ``time.perf_counter`` has it.
            status: of its answer.
            phases: of it.
            request_id: its id.
        """
        if self._provider is None:
            return
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in (b"traceparent", b"tracestate")
        }
        route = getattr(scope.get("route"), "path", "")
        span = self._tracer.start_span(
            f"{scope['method']} {route}".strip(),
            context=TraceContextTextMapPropagator().extract(carrier) if carrier else None,
            kind=SpanKind.SERVER,
            start_time=self._at(started),
        )
        if span.is_recording():
            span.set_attribute("http.request.method", scope["method"])
            span.set_attribute("http.route", route)
            span.set_attribute("http.response.status_code", status)
            span.set_attribute("ptft.request_id", request_id)
            within = set_span_in_context(span)
            for phase, lasted in phases.lasted.items():
                part = self._tracer.start_span(
                    phase, context=within, start_time=self._at(lasted.first)
                )
                part.set_attribute("ptft.seconds", lasted.seconds)
                part.end(self._at(lasted.last))
        span.end(self._at(time.perf_counter()))

    def close(self) -> None:
        """Send what there is; blocks for a moment at most, whatever the exporter waits for."""
        if self._provider is not None:
            ending = threading.Thread(target=self._provider.shutdown, daemon=True)
            ending.start()
            ending.join(_END_S)

    def _at(self, moment: float) -> int:
        return int(moment * 1e9) + self._offset_ns


def _provider(endpoint: str, ratio: float) -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    found = Resource.create()  # OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
    named = str(found.attributes.get("service.name", "unknown_service"))
    if named.startswith("unknown_service"):
        found = found.merge(Resource({"service.name": "ptft"}))
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(ratio)), resource=found, shutdown_on_exit=False
    )
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
