"""A collector: takes traces by OTLP over HTTP, as the OpenTelemetry Collector, Jaeger and Tempo do, and keeps them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

__all__ = ["Collector", "attributes_of", "collector"]


@dataclass
class Collector:
    """``requests`` as they came, ``spans`` in the order of their coming, ``resource`` of the last request."""

    url: str
    requests: list[bytes] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    resource: dict[str, Any] = field(default_factory=dict)

    def named(self, name: str) -> list[Span]:
        return [one for one in self.spans if one.name == name]

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append(body)
        for of_one in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = {one.key: _value(one.value) for one in of_one.resource.attributes}
            self.spans += [span for scope in of_one.scope_spans for span in scope.spans]
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")


def attributes_of(it: Any) -> dict[str, Any]:
    """Of a span or an event."""
    return {one.key: _value(one.value) for one in it.attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """Listening while the context lasts."""
    app = web.Application()
    it = Collector("")
    app.router.add_post("/v1/traces", it.take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        it.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield it
    finally:
        await runner.cleanup()
