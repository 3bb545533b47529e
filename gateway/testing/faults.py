"""A raw-socket upstream: every connection follows a script of bytes, waits and cuts.

    async with FaultUpstream([Receive(), Send(answer(b"half", length=9)), Reset()]) as up:
        ...  # talk to up.host, up.port; what arrived stands in up.received

`scripts` maps the number of a connection to its script; the last one serves all later connections. `ANSWERS` holds
the broken and unusual answers a relay must survive, by name.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Receive:
    """Read one whole request: head, and the body its framing declares."""

    body: bool = True


@dataclass(frozen=True, slots=True)
class Send:
    data: bytes
    piece: int = 0  # write in pieces of so many bytes; 0: at once
    pause: float = 0  # seconds between pieces


@dataclass(frozen=True, slots=True)
class Repeat:
    """Send the same bytes over and over, until the peer closes or `times` is reached."""

    data: bytes
    times: int | None = None
    pause: float = 0


@dataclass(frozen=True, slots=True)
class Wait:
    seconds: float


@dataclass(frozen=True, slots=True)
class Reset:
    """Close with RST."""


@dataclass(frozen=True, slots=True)
class HalfClose:
    """Send FIN, go on reading."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close cleanly; also the end of every script without another one."""


@dataclass(frozen=True, slots=True)
class Again:
    """Start the script over on the same connection (keep-alive)."""


Act = Receive | Send | Repeat | Wait | Reset | HalfClose | Close | Again
Script = Sequence[Act]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.I)


class FaultUpstream:
    """Serves scripts on a loopback port; counts connections and keeps the requests byte for byte."""

    def __init__(self, script: Script | Mapping[int, Script], *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._scripts: Mapping[int, Script] = script if isinstance(script, Mapping) else {0: script}
        self.host, self.port = host, port
        self.connections = 0
        self.received: list[bytes] = []
        self.peer_left = asyncio.Event()  # a peer closed or reset while a script was still sending or waiting
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self.host, self.port, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        number, self.connections = self.connections, self.connections + 1
        script = self._scripts.get(number, self._scripts[max(self._scripts)])
        try:
            while await self._play(script, reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            self.peer_left.set()
        except asyncio.CancelledError:
            pass  # the server is shutting down
        finally:
            writer.close()

    async def _play(self, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Run the script once; true when it shall start over."""
        for act in script:
            match act:
                case Receive():
                    self.received.append(await _request(reader, body=act.body))
                case Send():
                    await self._send(act, writer)
                case Repeat():
                    await self._repeat(act, reader, writer)
                case Wait():
                    await self._wait(act.seconds, reader)
                case HalfClose():
                    writer.write_eof()
                case Reset():
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    writer.transport.abort()
                    return False
                case Close():
                    return False
                case Again():
                    return True
        return False

    async def _send(self, act: Send, writer: asyncio.StreamWriter) -> None:
        step = act.piece or max(1, len(act.data))
        for start in range(0, len(act.data), step):
            if start and act.pause:
                await asyncio.sleep(act.pause)
            writer.write(act.data[start : start + step])
            await writer.drain()

    async def _repeat(self, act: Repeat, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = 0
        while act.times is None or sent < act.times:
            if reader.at_eof():
                raise ConnectionResetError("the peer left")
            writer.write(act.data)
            await writer.drain()
            await asyncio.sleep(act.pause)
            sent += 1

    async def _wait(self, seconds: float, reader: asyncio.StreamReader) -> None:
        """Wait, but notice a peer that leaves meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                if not await reader.read(1):
                    raise ConnectionResetError("the peer left")
        except TimeoutError:
            return


async def _request(reader: asyncio.StreamReader, *, body: bool) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    if not body:
        return head
    if match := _LENGTH.search(head):
        return head + await reader.readexactly(int(match[1]))
    if not _CHUNKED.search(head):
        return head
    data = b""
    while True:
        line = await reader.readline()
        size = int(line.split(b";")[0], 16)
        data += line + await reader.readexactly(size + 2)
        if size == 0:
            return head + data


def answer(body: bytes = b"{}", *headers: bytes, status: bytes = b"200 OK", length: int | None = None) -> bytes:
    """A JSON answer; `length` lies about the body."""
    size = len(body) if length is None else length
    lines = [b"HTTP/1.1 " + status, b"content-type: application/json", b"content-length: %d" % size, *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n", content_type: bytes = b"text/event-stream") -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: " + content_type + b"\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end


_EVENT = b'data: {"id":"x","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
_OLD = b'HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{"a":1}'
_MOVED = answer(b"", b"location: http://127.0.0.1:1/", status=b"307 Temporary Redirect")
_TRAILED = chunked(b"{}", end=b"0\r\nx-trailer: 1\r\n\r\n", content_type=b"application/json")
_HTML = b"<!doctype html><html><body><h1>502 Bad Gateway</h1></body></html>"

ANSWERS: dict[str, Script] = {
    "reset_before_answer": [Receive(), Reset()],
    "close_before_answer": [Receive(), Close()],
    "close_at_accept": [Close()],
    "silence": [Receive(), Wait(3600)],
    "half_close_then_answer": [Receive(), Send(answer()), HalfClose(), Wait(1)],
    "length_too_long": [Receive(), Send(answer(b'{"a":1}', length=100)), Close()],
    "length_too_short": [Receive(), Send(answer(b'{"a":1,"b":2}', length=7)), Close()],
    "length_twice": [Receive(), Send(answer(b"{}", b"content-length: 3")), Close()],
    "length_and_chunked": [Receive(), Send(answer(b"0\r\n\r\n", b"transfer-encoding: chunked")), Close()],
    "length_not_a_number": [Receive(), Send(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n{}"), Close()],
    "reset_in_body": [Receive(), Send(answer(b'{"a":', length=100)), Reset()],
    "bad_chunk_size": [Receive(), Send(chunked(_EVENT, end=b"zz\r\n")), Close()],
    "chunk_without_crlf": [Receive(), Send(chunked(_EVENT, end=b"3\r\nabcX0\r\n\r\n")), Close()],
    "cut_in_chunk": [Receive(), Send(chunked(_EVENT, end=b"ff\r\nabc")), Close()],
    "stream_without_end": [Receive(), Send(chunked(_EVENT, _EVENT)), Again()],
    "stream_reset": [Receive(), Send(chunked(_EVENT, _EVENT, end=b"")), Reset()],
    "stream_stall": [Receive(), Send(chunked(_EVENT, end=b"")), Wait(3600)],
    "one_byte_per_second": [Receive(), Send(chunked(_EVENT * 20), piece=1, pause=1)],
    "endless_stream": [Receive(), Send(chunked(end=b"")), Repeat(b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT))],
    "endless_line": [Receive(), Send(chunked(end=b"")), Repeat(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")],
    "huge_headers": [Receive(), Send(answer(b"{}", *(b"x-%d: %b" % (n, b"v" * 4000) for n in range(100)))), Again()],
    "endless_header": [Receive(), Send(b"HTTP/1.1 200 OK\r\nx-endless: "), Repeat(b"x" * 0x4000)],
    "html": [Receive(), Send(answer(_HTML).replace(b"application/json", b"text/html")), Again()],
    "not_http": [Receive(), Send(b"SSH-2.0-OpenSSH_9.2p1\r\n"), Close()],
    "garbage": [Receive(), Send(bytes(range(256)) * 4), Close()],
    "http_0_9": [Receive(), Send(b"hello"), Close()],
    "http_1_0_until_close": [Receive(), Send(_OLD), Close()],
    "status_line_garbage": [Receive(), Send(b"HTTP/1.1 2OO OK\r\n\r\n"), Close()],
    "bare_lf": [Receive(), Send(b"HTTP/1.1 200 OK\ncontent-length: 2\n\n{}"), Close()],
    "obs_fold": [Receive(), Send(b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 2\r\n\r\n{}"), Close()],
    "broken_gzip": [Receive(), Send(answer(gzip.compress(b"{}")[:-6] + b"broken", b"content-encoding: gzip")), Again()],
    "not_gzip": [Receive(), Send(answer(b'{"a":1}', b"content-encoding: gzip")), Again()],
    "gzip_bomb": [Receive(), Send(answer(gzip.compress(b" " * 2**26), b"content-encoding: gzip")), Again()],
    "informational_first": [Receive(), Send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + answer()), Again()],
    "continue_first": [Receive(), Send(b"HTTP/1.1 100 Continue\r\n\r\n" + answer()), Again()],
    "redirect": [Receive(), Send(_MOVED), Again()],
    "no_content": [Receive(), Send(b"HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n"), Again()],
    "trailers": [Receive(), Send(_TRAILED), Again()],
    "set_cookie_twice": [Receive(), Send(answer(b"{}", b"set-cookie: a=1", b"Set-Cookie: b=2")), Again()],
    "two_answers": [Receive(), Send(answer(b"{}") + answer(b'{"second":1}')), Close()],
    "switching_protocols": [Receive(), Send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n"), Close()],
    "unknown_status": [Receive(), Send(answer(status=b"299 Strange")), Again()],
    "empty_reason": [Receive(), Send(answer(status=b"200 ")), Again()],
}  # fmt: skip
