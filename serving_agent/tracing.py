"""OpenTelemetry traces of inferences: off unless the manifest names a collector.

A span is written from finished timings, after the answer has been handed on: it adds nothing to the path in
front of the client. `traceparent` (W3C Trace Context) makes it a child of the client's span and tells
whether it is sampled.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from serving_agent.contract.manifest import Manifest
from serving_agent.messages import InferRequest
from serving_agent.work import Answer, Outcome

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

TRACEPARENT: Final = "traceparent"
NS_PER_S: Final = 1_000_000_000
FLUSH_S: Final = 2.0
"""How long the last spans may take to leave when the agent ends."""


class Tracer:
    """Writes one span with its stages for each inference that is sampled."""

    def __init__(self, manifest: Manifest, exporter: SpanExporter) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create({
            "service.name": manifest.endpoint,
            "service.version": manifest.version_ref,
            "service.instance.id": manifest.agent_id,
        })  # fmt: skip
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("signalbox.serving_agent")
        self._propagator = TraceContextTextMapPropagator()

    def record(self, request: InferRequest, outcome: Outcome) -> None:
        """Write the span of *request*, which has just ended in *outcome*."""
        from opentelemetry.trace import SpanKind

        end_ns, ended_s = time.time_ns(), time.perf_counter()
        span = self._tracer.start_span(
            "infer",
            context=self._propagator.extract({TRACEPARENT: request.traceparent}),
            kind=SpanKind.SERVER,
            start_time=end_ns - int((ended_s - request.arrived_s) * NS_PER_S),
            attributes={"request.id": request.id} if request.id else None,
        )
        if span.is_recording():
            self._record_outcome(span, outcome, end_ns)
        span.end(end_ns)

    def close(self) -> None:
        """Send what is left, for FLUSH_S at most: the SDK itself would wait for a collector that is gone."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(FLUSH_S)

    def _record_outcome(self, span: Span, outcome: Outcome, end_ns: int) -> None:
        from opentelemetry.trace import StatusCode

        if isinstance(outcome, Answer):
            self._record_stages(span, outcome, end_ns)
        else:
            span.set_attribute("error.type", outcome.code)
            span.set_status(StatusCode.ERROR, str(outcome))

    def _record_stages(self, span: Span, answer: Answer, end_ns: int) -> None:
        from opentelemetry.trace import set_span_in_context

        context = set_span_in_context(span)
        stages = (
            ("queue", answer.queue_s),
            ("preprocess", answer.stages.preprocess_s),
            ("predict", answer.stages.predict_s),
            ("postprocess", answer.stages.postprocess_s),
        )
        start_ns = end_ns - int(sum(seconds for _, seconds in stages) * NS_PER_S)
        for name, seconds in stages:
            stage_end_ns = start_ns + int(seconds * NS_PER_S)
            self._tracer.start_span(name, context, start_time=start_ns).end(stage_end_ns)
            start_ns = stage_end_ns


def tracer_for(manifest: Manifest) -> Tracer | None:
    """Return the tracer that *manifest* asks for, or None; imports OpenTelemetry only where it is wanted."""
    if manifest.otlp_endpoint is None:
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return Tracer(manifest, OTLPSpanExporter(f"{manifest.otlp_endpoint.rstrip('/')}/v1/traces"))
