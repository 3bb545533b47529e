"""asyncio.Protocol and httptools on both sides, kept-alive connections, one coroutine per request; nothing is read."""

from __future__ import annotations

import asyncio

import httptools
import uvloop

from tests.bench.proxies.common import HOP_BYTES, PORT, UPSTREAM_PORT
from tests.bench.proxies.slim_client import Pool

REQUEST_LINE = f" HTTP/1.1\r\nhost: 127.0.0.1:{UPSTREAM_PORT}\r\n".encode()
REASON = {200: b"OK", 404: b"Not Found", 429: b"Too Many Requests", 503: b"Service Unavailable"}


class Client(asyncio.Protocol):
    pool = None

    def connection_made(self, transport):
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.headers, self.body, self.chunked, self.out = [], [], False, None

    def data_received(self, data):
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def on_url(self, url):
        self.url = url

    def on_header(self, name, value):
        self.headers.append((name, value))

    def on_body(self, body):
        self.body.append(body)

    def on_message_complete(self):
        self.keep = self.parser.should_keep_alive()
        self.task = self.pool.loop.create_task(self.handle())

    async def handle(self):
        body = self.body[0] if len(self.body) == 1 else b"".join(self.body)
        parts = [self.parser.get_method(), b" ", self.url, REQUEST_LINE]
        for name, value in self.headers:
            if name.lower() not in HOP_BYTES:
                parts += (name, b": ", value, b"\r\n")
        parts += (b"content-length: %d\r\n\r\n" % len(body), body)
        self.headers, self.body = [], []
        try:
            await self.pool.request(b"".join(parts), self)
        except OSError:
            self.transport.write(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")
            return
        if self.chunked:
            self.transport.write(b"0\r\n\r\n")
        if not self.keep:
            self.transport.close()

    # -- sink of the upstream's reply

    def head(self, status, headers):
        parts = [b"HTTP/1.1 %d %s\r\n" % (status, REASON.get(status, b""))]
        self.chunked = True
        for name, value in headers:
            name = name.lower()
            if name == b"content-length":
                self.chunked = False
                parts += (name, b": ", value, b"\r\n")
            elif name not in HOP_BYTES:
                parts += (name, b": ", value, b"\r\n")
        if self.chunked:
            parts.append(b"transfer-encoding: chunked\r\n")
        parts.append(b"\r\n")
        self.out = b"".join(parts)

    def data(self, chunk):
        if self.chunked:
            chunk = b"%x\r\n%b\r\n" % (len(chunk), chunk)
        if self.out:
            chunk, self.out = self.out + chunk, None
        self.transport.write(chunk)


async def main():
    loop = asyncio.get_running_loop()
    Client.pool = Pool(loop, UPSTREAM_PORT)
    await loop.create_server(Client, "127.0.0.1", PORT, backlog=4096)
    await asyncio.Event().wait()


uvloop.run(main())
