"""WebSocket frames (RFC 6455) and permessage-deflate (RFC 7692), read on the way through, never written.

Rules
1. The reader never raises and never answers: what is broken or too large is skipped, the relay goes on.
2. A message above `most` (MAX_EVENT; of clients, MAX_ASKED), compressed or not, is lost to the meter, which is told so.
   If it was compressed, so is every later one of that direction that would need its context.
3. A binary message of a client is read as a text: servers do so.
"""

from __future__ import annotations

import zlib

from gateway.call import Answer
from gateway.dialects.sse import MAX_EVENT
from gateway.dialects.websocket import WebSocketMeter, ws_error
from gateway.errors import GatewayError
from gateway.ports import Used

MAX_ASKED = 16 * 1024 * 1024  # no provider takes more in one message

_CONTINUATION, _TEXT, _BINARY, _CLOSE = 0, 1, 2, 8
_POLICY = (1008).to_bytes(2, "big")
_FLUSH_TAIL = b"\x00\x00\xff\xff"


class FrameReader:
    """One direction. `feed` returns the text messages that have become complete."""

    def __init__(
        self, *, deflate: bool, keeps_context: bool, most: int = MAX_EVENT, kinds: tuple[int, ...] = (_TEXT,)
    ) -> None:
        self._buffer = bytearray()
        self._skip = 0  # payload bytes still to be passed over
        self._message = bytearray()
        self._opcode = _BINARY
        self._compressed = False
        self._lost = False  # the message in progress is not kept
        self._open = False  # a message has begun and not ended
        self._deflate = deflate
        self._keeps = keeps_context
        self._inflater = zlib.decompressobj(-15) if deflate else None
        self._most, self._kinds = most, kinds
        self.missed = False  # a message of these kinds could not be read

    @property
    def between(self) -> bool:
        """Is no frame and no message half read?"""
        return not (self._buffer or self._skip or self._open)

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        found: list[bytes] = []
        while self._step(found):
            pass
        return found

    def _step(self, found: list[bytes]) -> bool:
        buffer = self._buffer
        if self._skip:
            passed = min(self._skip, len(buffer))
            del buffer[:passed]
            self._skip -= passed
            return bool(passed) and not self._skip
        head = _head(buffer)
        if head is None:
            return False
        start, length = head
        final, opcode = bool(buffer[0] & 0x80), buffer[0] & 0x0F
        if length > self._most:
            self._begin(opcode, bool(buffer[0] & 0x40))
            self._lose()
            self._skip = length
            self._open = not final
            del buffer[:start]
            if final:
                self._finish(found)
            return True
        if len(buffer) < start + length:
            return False
        payload = bytes(buffer[start : start + length])
        if buffer[1] & 0x80:
            payload = _unmasked(payload, bytes(buffer[start - 4 : start]))
        compressed = bool(buffer[0] & 0x40)
        del buffer[: start + length]
        if opcode <= _BINARY:
            self._open = not final
            self._take(opcode, compressed, payload)
            if final:
                self._finish(found)
        return True

    def _begin(self, opcode: int, compressed: bool) -> None:
        if opcode != _CONTINUATION:
            self._message.clear()
            self._opcode, self._compressed, self._lost = opcode, compressed, False

    def _take(self, opcode: int, compressed: bool, payload: bytes) -> None:
        self._begin(opcode, compressed)
        if self._lost or (self._opcode not in self._kinds and not self._compressed):
            return
        self._message += payload
        if len(self._message) > self._most:
            self._lose()

    def _lose(self) -> None:
        self._lost = True
        self._message.clear()
        self.missed = self.missed or self._opcode in self._kinds
        if self._compressed and self._keeps:
            self._inflater = None

    def _finish(self, found: list[bytes]) -> None:
        kept = self._opcode in self._kinds
        if not self._lost and (kept or self._compressed):
            text = self._inflated(bytes(self._message)) if self._compressed else bytes(self._message)
            if text is None:
                self.missed = self.missed or kept
            elif text and kept:
                found.append(text)
        self._message.clear()
        self._opcode, self._compressed, self._lost = _BINARY, False, False

    def _inflated(self, data: bytes) -> bytes | None:
        """None for what cannot be read."""
        inflater = self._inflater
        if inflater is None:
            return None
        if not self._keeps:
            inflater = zlib.decompressobj(-15)
        try:
            text = inflater.decompress(data + _FLUSH_TAIL, self._most + 1)
        except zlib.error:
            self._inflater = None
            return None
        if len(text) > self._most or inflater.unconsumed_tail:
            if self._keeps:
                self._inflater = None
            return None
        return text


def _head(buffer: bytearray) -> tuple[int, int] | None:
    """(offset of the payload, its length), or None while the head is incomplete."""
    if len(buffer) < 2:
        return None
    length = buffer[1] & 0x7F
    start = 2
    if length >= 126:
        start = 4 if length == 126 else 10
        if len(buffer) < start:
            return None
        length = int.from_bytes(buffer[2:start], "big")
    if buffer[1] & 0x80:
        start += 4
    return (start, length) if len(buffer) >= start else None


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


class FrameTap:
    """A `Tap`: both directions of one WebSocket, their text messages given to a meter."""

    def __init__(self, meter: WebSocketMeter, extensions: bytes) -> None:
        """`extensions`: value of sec-websocket-extensions as the server accepted it."""
        terms = extensions.lower()
        deflate = b"permessage-deflate" in terms
        self._meter = meter
        self._client = FrameReader(
            deflate=deflate,
            keeps_context=b"client_no_context_takeover" not in terms,
            most=MAX_ASKED,
            kinds=(_TEXT, _BINARY),
        )
        self._upstream = FrameReader(deflate=deflate, keeps_context=b"server_no_context_takeover" not in terms)

    def feed(self, from_client: bool, data: bytes) -> None:
        reader, sender = (self._client, "client") if from_client else (self._upstream, "upstream")
        for text in reader.feed(data):
            self._meter.feed_text(sender, text)
        if reader.missed:
            reader.missed = False
            self._meter.missed(sender)

    def used(self) -> Used | None:
        return self._meter.used()

    def strays(self, model: str) -> bool:
        return self._meter.strays(model)

    def withheld(self) -> None:
        self._meter.withheld()

    def close(self, fault: GatewayError, request_id: str) -> bytes:
        """An error event and a close frame (1008, "policy violation"), neither masked nor compressed: a message says of
        itself whether it is (RFC 7692 6)."""
        if not self._upstream.between:
            return b""
        return _frame(_TEXT, ws_error(fault, request_id)) + _frame(_CLOSE, _POLICY + fault.code.encode())

    def end(self) -> Answer:
        return self._meter.end()


def _frame(opcode: int, payload: bytes) -> bytes:
    """A whole message of a server, of up to 65,535 bytes."""
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + payload
