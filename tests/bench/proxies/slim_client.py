"""A slim HTTP/1.1 upstream client: asyncio.Protocol, httptools and a pool of kept-alive connections.

`await pool.request(head_and_body, sink)` sends one request; `sink` receives head(status, headers) and data(bytes), and
the call returns at the end of the body.
"""

from __future__ import annotations

import asyncio

import httptools


class Upstream(asyncio.Protocol):
    keep = None  # set at the end of a reply: may the connection be used again?

    def __init__(self, pool):
        self.pool, self.sink, self.done, self.headers, self.pieces = pool, None, None, [], []

    def connection_made(self, transport):
        self.transport = transport

    def send(self, data, sink):
        self.sink, self.headers = sink, []
        self.parser = httptools.HttpResponseParser(self)
        self.done = self.pool.loop.create_future()
        self.transport.write(data)
        return self.done

    def data_received(self, data):
        if self.sink is None:
            self.transport.close()
            return
        self.parser.feed_data(data)
        if self.pieces:  # one write per read, however many chunks it held
            body, self.pieces = (self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)), []
            self.sink.data(body)
        if self.keep is not None:
            done, self.done, self.sink = self.done, None, None
            if self.keep:
                self.pool.idle.append(self)
            else:
                self.transport.close()
            self.keep = None
            done.set_result(None)

    def on_header(self, name, value):
        self.headers.append((name, value))

    def on_headers_complete(self):
        self.sink.head(self.parser.get_status_code(), self.headers)

    def on_body(self, body):
        self.pieces.append(body)

    def on_message_complete(self):
        self.keep = self.parser.should_keep_alive()

    def connection_lost(self, exc):
        if self.done is not None and not self.done.done():
            self.done.set_exception(exc or ConnectionResetError("upstream closed"))
        if self in self.pool.idle:
            self.pool.idle.remove(self)


class Pool:
    def __init__(self, loop, port):
        self.loop, self.port, self.idle = loop, port, []

    async def request(self, data, sink):
        while self.idle:
            upstream = self.idle.pop()
            if not upstream.transport.is_closing():
                break
        else:
            _, upstream = await self.loop.create_connection(lambda: Upstream(self), "127.0.0.1", self.port)
        await upstream.send(data, sink)
