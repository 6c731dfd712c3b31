"""How does the SDK of OpenTelemetry get our spans, whose ids and times are ours? The only module that imports it.

What it reads from the variables OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_CERTIFICATE and OTEL_RESOURCE_ATTRIBUTES counts.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from forwarder.spans.export import ExportSettings
from forwarder.spans.journal import Context, Span

__all__ = ["Sender"]

#: Spans of one request.
_BATCH = 512
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET = Status(StatusCode.UNSET)
_KINDS = {"internal": SpanKind.INTERNAL, "server": SpanKind.SERVER, "client": SpanKind.CLIENT}


class _Counting(SpanExporter):
    """Which spans have left the queue, and for where?"""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.exported = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if result is SpanExportResult.SUCCESS:
                self.exported += len(spans)
            else:
                self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class Sender:
    """Spans go in on one thread, the event loop's."""

    def __init__(self, settings: ExportSettings) -> None:
        # What it has to say would stand between the lines of our log.
        logger = logging.getLogger("opentelemetry")
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        endpoint = settings.endpoint.rstrip("/") + "/v1/traces"
        self._exporter = _Counting(OTLPSpanExporter(endpoint=endpoint, timeout=settings.timeout))
        self._waiting = settings.waiting
        self._taken = 0
        self._refused = 0
        self._given_up = False
        # It would drop the oldest without a count: it never has as many.
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=settings.waiting + _BATCH,
            schedule_delay_millis=settings.pause * 1000,
            max_export_batch_size=_BATCH,
        )
        self._scope = InstrumentationScope("forwarder", settings.version)
        self._resource = Resource.create(
            {
                "service.name": "mailkey-forwarder",
                "service.version": settings.version,
                "service.instance.id": settings.instance,
            }
        )

    @property
    def exported(self) -> int:
        """Spans that the collector has taken."""
        return self._exporter.exported

    @property
    def dropped(self) -> int:
        """Spans that it never got; after ``give_up`` also those that wait."""
        return self._refused + (self._left + self._exporter.failed if self._given_up else self._exporter.failed)

    @property
    def _left(self) -> int:
        return self._taken - self._exporter.exported - self._exporter.failed

    def take(self, span: Span) -> None:
        """Waits for nothing."""
        if self._left >= self._waiting:
            self._refused += 1
            return
        self._taken += 1
        # Not by a tracer: it is for spans that begin and end as it is told of them, and takes three times as long.
        self._processor.on_end(
            ReadableSpan(
                span.name,
                context=_sampled(span.context),
                parent=_sampled(span.parent) if span.parent is not None else None,
                resource=self._resource,
                attributes=span.attributes,
                events=[Event(name, attributes, at) for name, at, attributes in span.notes],
                links=[Link(_sampled(span.link))] if span.link is not None else (),
                kind=_KINDS[span.kind],
                status=Status(StatusCode.ERROR, span.failed) if span.failed is not None else _UNSET,
                start_time=span.began,
                end_time=span.ended,
                instrumentation_scope=self._scope,
            )
        )

    def close(self) -> None:
        """Hand over what waits. Blocks."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def abort(self) -> None:
        """Break off ``close``, but for the request that is under way."""
        self._exporter.shutdown()

    def give_up(self) -> None:
        """What was not handed over by now never will be."""
        self._given_up = True


def _sampled(context: Context) -> SpanContext:
    return SpanContext(context.trace, context.span, is_remote=False, trace_flags=_SAMPLED)
