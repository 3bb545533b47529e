"""An OTLP collector for tests: takes what the stock exporters send over HTTP, and can be dead, slow or refusing."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Iterator

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, ResourceMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

SILENCE_SECONDS = 60


class OtlpCollector:
    """Runs in a thread on a free loopback port. It answers with `status`, `answer` and `answer_headers`, and not at
    all while `open` is clear.
    """

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.answer = b""  # body, and headers
        self.answer_headers: dict[str, str] = {}
        self.open = threading.Event()
        self.open.set()
        self.headers: list[dict[str, str]] = []
        self.resource_spans: list[ResourceSpans] = []
        self.resource_metrics: list[ResourceMetrics] = []
        self.url = ""
        self._ready = threading.Event()
        self._arrived = threading.Condition()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> OtlpCollector:
        self._thread.start()
        if not self._ready.wait(10):
            raise TimeoutError("the collector did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self.open.set()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def spans(self) -> list[Span]:
        return [span for group in self.resource_spans for scope in group.scope_spans for span in scope.spans]

    def metrics(self) -> Iterator[Metric]:
        """Those of the last push."""
        for scope in self.resource_metrics[-1].scope_metrics:
            yield from scope.metrics

    def requests(self, count: int, timeout: float = 20) -> bool:
        """Wait until that many requests have arrived."""
        with self._arrived:
            return self._arrived.wait_for(lambda: len(self.headers) >= count, timeout)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/traces", self._traces)
        app.router.add_post("/v1/metrics", self._metrics)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _traces(self, request: web.Request) -> web.Response:
        message = ExportTraceServiceRequest.FromString(await self._body(request))
        if self.status == 200:
            self.resource_spans += message.resource_spans
        return await self._answer(request)

    async def _metrics(self, request: web.Request) -> web.Response:
        message = ExportMetricsServiceRequest.FromString(await self._body(request))
        if self.status == 200:
            self.resource_metrics += message.resource_metrics
        return await self._answer(request)

    @staticmethod
    async def _body(request: web.Request) -> bytes:
        """aiohttp has decoded it already where it knows the encoding."""
        body = await request.read()
        return gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body

    async def _answer(self, request: web.Request) -> web.Response:
        with self._arrived:
            self.headers.append({name.lower(): value for name, value in request.headers.items()})
            self._arrived.notify_all()
        await self._loop.run_in_executor(None, self.open.wait, SILENCE_SECONDS)
        return web.Response(status=self.status, body=self.answer, headers=self.answer_headers)
