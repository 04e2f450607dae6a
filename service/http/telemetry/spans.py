"""OpenTelemetry: one server span for each request, with a child for each of its stages.

The standard `OTEL_*` variables configure everything. The SDK is imported only if they name a collector. Spans are
exported by a thread of the SDK, which drops what the collector does not take in time.
"""

import logging
import os
import threading
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from service.http.identity.trace_context import SAMPLED, TraceContext
from service.http.telemetry.exposition import Samples
from service.http.telemetry.observation import Observation, Outcome

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
FLUSH_S = 2.0  # for the last spans, when the service ends

log = logging.getLogger(__name__)


def open_spans(environment: Mapping[str, str]) -> "SpanObserver | None":
    """Return the observer that these variables ask for; None, with a line in the log, if it cannot be had."""
    endpoint = next((name for name in ENDPOINTS if environment.get(name)), None)
    is_disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if endpoint is None or is_disabled or environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return None
    protocol = next((environment[name] for name in PROTOCOLS if environment.get(name)), PROTOCOL)
    if protocol != PROTOCOL:
        log.error("no spans are exported: the service speaks %s to a collector, not %s", PROTOCOL, protocol)
        return None
    if find_spec("opentelemetry.exporter.otlp.proto.http") is None:  # its parents come with bentoml
        log.error("no spans are exported: %s is set, but the dependency group `otel` is not installed", endpoint)
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - slow, optional

    return SpanObserver(OTLPSpanExporter())


class SpanObserver:
    def __init__(self, exporter: "SpanExporter") -> None:
        from opentelemetry import trace  # noqa: PLC0415 - not needed without spans, as the next ones
        from opentelemetry.context import Context  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._trace, self._no_context = trace, Context()
        self._propagator = TraceContextTextMapPropagator()
        # A name in the variables goes before this one.
        named = Resource.create({"service.instance.id": f"{os.uname().nodename}:{os.getpid()}"})
        default = Resource({"service.name": "ekiben"})
        unnamed = str(named.attributes.get("service.name", "")).startswith("unknown_service")
        self._provider = TracerProvider(resource=named.merge(default) if unnamed else named, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("ekiben")

    def begin(self, observation: Observation) -> None:
        """Start the span of the request, and answer with its place in the trace."""
        request = observation.request
        parent = self._no_context
        if request.trace is not None and request.trace.parent_id:
            carrier = {"traceparent": request.header("traceparent"), "tracestate": request.header("tracestate")}
            parent = self._propagator.extract(carrier, self._no_context)
        span = self._tracer.start_span(
            f"{request.method} {observation.route}",
            parent,
            self._trace.SpanKind.SERVER,
            {
                "http.request.method": request.method,
                "http.route": observation.route,
                "url.path": request.path,
                "url.scheme": "http",
                "client.address": request.client,
                "ekiben.request.id": request.id,
            },
            start_time=_unix_ns(request.received_at),
        )
        context = span.get_span_context()
        request.trace = TraceContext(
            f"{context.trace_id:032x}",
            f"{context.span_id:016x}",
            request.trace.parent_id if request.trace is not None else "",
            is_sampled=bool(context.trace_flags & SAMPLED),
        )
        answered = [header for header in request.reply_headers if header[0] != "traceparent"]
        request.reply_headers[:] = [*answered, ("traceparent", request.trace.header)]
        observation.span = span

    def end(self, observation: Observation, outcome: Outcome) -> None:
        span: Span = observation.span  # type: ignore[assignment]  # by `begin`
        if not span.is_recording():
            return
        span.set_attribute("http.response.status_code", outcome.status)
        if outcome.model:
            span.set_attribute("ekiben.model.name", outcome.model)
            span.set_attribute("ekiben.model.version", outcome.version)
        if outcome.status >= 500:
            span.set_attribute("error.type", str(outcome.status))
            span.set_status(self._trace.Status(self._trace.StatusCode.ERROR))
        ended_at = time.monotonic()
        self._add_stages(observation, self._trace.set_span_in_context(span, self._no_context), ended_at)
        span.end(_unix_ns(ended_at))

    def _add_stages(self, observation: Observation, parent: "Context", ended_at: float) -> None:
        """Add the stages that the request reached; between them its items are made tensors, and the reverse."""
        if not observation.body_at:
            return
        self._add("receive", parent, observation.request.received_at, observation.body_at)
        context = observation.request.context
        timings = list(context.timings or ()) if context is not None else []
        answer_at = observation.body_at
        if timings:
            started_at = min(timing.started_at for timing in timings)
            answer_at = max(timing.ended_at for timing in timings)
            self._add("queue", parent, min(timing.queued_at for timing in timings), started_at)
            self._add("compute", parent, started_at, answer_at)
        self._add("answer", parent, answer_at, ended_at)

    def _add(self, name: str, parent: "Context", started_at: float, ended_at: float) -> None:
        self._tracer.start_span(name, parent, start_time=_unix_ns(started_at)).end(_unix_ns(ended_at))

    def samples(self) -> Samples:
        return {}

    def close(self) -> None:
        """Export what is left, unless the collector takes too long."""
        thread = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        thread.start()
        thread.join(FLUSH_S)


def _unix_ns(at: float) -> int:
    """The time of `time.monotonic` as nanoseconds since 1970."""
    return time.time_ns() - int((time.monotonic() - at) * 1e9)
