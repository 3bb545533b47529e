"""HTTP/1.1 by hand: exactly these bytes go out, and exactly what comes back is shown.

with RawClient(gate.port) as client:
    client.send(post("/v1/chat/completions", body, b"TE: chunked"))
    answer = client.answer()  # status, headers in order and case, body, whether its framing came to its end
    assert client.ends() == "closed"
"""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

Header = tuple[bytes, bytes]


class NoAnswer(Exception):
    """The connection ended, or nothing came in time, before a whole head was there; the message says which."""


@dataclass(slots=True)
class RawAnswer:
    status: int
    reason: bytes
    headers: list[Header]
    body: bytes = b""
    complete: bool = False  # the framing came to its end
    interim: list[int] = field(default_factory=list)  # the 1xx before it
    head: bytes = b""  # as received, with its empty line

    def get(self, name: str) -> str:
        """The first value of a header, or ""."""
        lower = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == lower), "")

    def all(self, name: str) -> list[str]:
        lower = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.headers if key.lower() == lower]


class RawClient:
    """One connection. Every wait ends after `timeout` seconds. `receive_buffer` is set before connecting."""

    def __init__(
        self,
        port: int,
        *,
        host: str = "127.0.0.1",
        timeout: float = 30,
        tls: ssl.SSLContext | None = None,
        receive_buffer: int = 0,
    ) -> None:
        self.timeout = timeout
        raw = socket.socket()
        raw.settimeout(timeout)
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            raw.connect((host, port))
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket: socket.socket = tls.wrap_socket(raw, server_hostname=host) if tls is not None else raw
        except OSError:
            raw.close()
            raise
        self.rest = b""  # received, not yet part of an answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Close with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data: bytes, *, piece: int = 0, pause: float = 0) -> None:
        """`piece`: bytes per segment, `pause`: seconds between them."""
        step = piece or max(1, len(data))
        for start in range(0, len(data), step):
            self.socket.sendall(data[start : start + step])
            if pause:
                time.sleep(pause)

    def more(self, size: int = 65_536) -> bytes:
        """The next bytes; b"" at the end of the stream. Raises TimeoutError or ConnectionError."""
        if self.rest:
            data, self.rest = self.rest, b""
            return data
        return self.socket.recv(size)

    def until(self, mark: bytes) -> bytes:
        """All bytes up to and with `mark`. Raises NoAnswer where it does not come."""
        data = b""
        while (at := data.find(mark)) < 0:
            try:
                piece = self.more()
            except (ConnectionError, TimeoutError) as fault:
                raise NoAnswer(f"{type(fault).__name__} after {data[-200:]!r}") from None
            if not piece:
                raise NoAnswer(f"closed after {data[-200:]!r}")
            data += piece
        self.rest = data[at + len(mark) :] + self.rest
        return data[: at + len(mark)]

    def answer(self, *, bodiless: bool = False) -> RawAnswer:
        """The next final answer. `bodiless`: to a HEAD. What is cut off is no error: then it is not `complete`."""
        interim: list[int] = []
        while True:
            head = self.until(b"\r\n\r\n")
            line, *lines = head[:-4].split(b"\r\n")
            version, status, reason = (*line.split(b" ", 2), b"")[:3]
            if not version.startswith(b"HTTP/1."):
                raise NoAnswer(f"not HTTP: {head[:200]!r}")
            if int(status) >= 200 or int(status) == 101:
                break
            interim.append(int(status))
        headers = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
        found = RawAnswer(int(status), reason, headers, interim=interim, head=head)
        if bodiless or found.status in (101, 204, 304):
            found.complete = True
        else:
            self._body(found)
        return found

    def _body(self, found: RawAnswer) -> None:
        try:
            if found.get("transfer-encoding"):
                self._chunks(found)
            elif length := found.get("content-length"):
                while len(found.body) < int(length) and (piece := self.more()):
                    found.body += piece
                found.body, self.rest = found.body[: int(length)], found.body[int(length) :] + self.rest
                found.complete = len(found.body) == int(length)
            else:
                while piece := self.more():
                    found.body += piece
                found.complete = True
        except (ConnectionError, TimeoutError, NoAnswer):
            pass

    def _chunks(self, found: RawAnswer) -> None:
        while True:
            size = int(self.until(b"\r\n").split(b";")[0], 16)
            data = b""
            while len(data) < size + 2:
                piece = self.more()
                if not piece:
                    found.body += data[:size]
                    return
                data += piece
            found.body += data[:size]
            self.rest = data[size + 2 :] + self.rest
            if not size:
                found.complete = True
                return

    def ends(self, seconds: float = 5) -> str:
        """How the connection ends within `seconds`: "closed", "reset", or "open". What still comes is dropped."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                if not self.socket.recv(65_536):
                    return "closed"
            except TimeoutError:
                break
            except ConnectionError:
                return "reset"
            finally:
                self.socket.settimeout(self.timeout)
        return "open"


def request(method: str, target: str | bytes, *headers: bytes, body: bytes = b"", host: bytes = b"gate") -> bytes:
    """A request with Host and, where there is a body, Content-Length."""
    target = target.encode() if isinstance(target, str) else target
    lines = [b"%b %b HTTP/1.1" % (method.encode(), target), b"Host: " + host, *headers]
    if body:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def post(target: str | bytes, body: bytes, *headers: bytes) -> bytes:
    """A POST of a JSON body."""
    return request("POST", target, b"Content-Type: application/json", *headers, body=body)


def chunks(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """A chunked body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end
