"""Where did a message spend its time, beside everything else that an operator watches? Traces of OpenTelemetry.

journal   events of the journal, made into spans: one trace a message
export    spans, sent to a collector by the official SDK, which is imported only then
"""

from __future__ import annotations

from forwarder.spans.export import Exporter, ExportSettings
from forwarder.spans.journal import Span, SpanJournal

__all__ = ["ExportSettings", "Exporter", "Span", "SpanJournal"]
