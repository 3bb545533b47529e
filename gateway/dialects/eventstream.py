"""`application/vnd.amazon.eventstream`: how AWS frames the events of a stream, read and written.

A message is: its length and that of its headers (u32, big-endian), the CRC-32 of these eight bytes, the headers, the
payload, and the CRC-32 of all before (https://smithy.io/2.0/aws/amazon-eventstream.html). A header is a name behind its
length (u8), a type (u8) and a value, of which only strings matter here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from zlib import crc32

import msgspec

from gateway.dialects.meters import error_facts
from gateway.dialects.shape import decoded
from gateway.dialects.sse import MAX_EVENT, Event

CONTENT_TYPE = b"application/vnd.amazon.eventstream"
_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
_AROUND = _PRELUDE.size + _CRC.size
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}  # of the types of values that have one
_TEXTS = (6, 7)  # bytes and strings, behind their length (u16)
_STRING = 7
LONGEST = 24 * 1024 * 1024  # of a message; AWS allows payloads of 16 MB
GARBLED: Event = (b"", b"\xff")  # stands for bytes that are no messages: no JSON either


class FrameCutter:
    """Bytes in, (event or exception type, payload) out; see `streams.Cutter`. An exception's event is called `error`,
    and its payload is `{"error": {"type": ..., "message": ...}}`.

    A message above `MAX_EVENT` is skipped and flagged. Checksums of messages are the client's to verify; that of a
    prelude says whether the bytes are messages at all: where it is wrong, nothing more is read.
    """

    __slots__ = ("_broken", "_rest", "_skip", "_unpack", "overflowed")

    idle = False  # every piece goes through `feed`

    def __init__(self) -> None:
        self._rest = bytearray()
        self._skip = 0  # bytes of a message that is given up
        self._broken = False
        self.overflowed = False

    @property
    def partial(self) -> bool:
        return bool(self._rest) or self._skip > 0 or self._broken

    def feed(self, data: bytes) -> list[Event]:
        if self._broken:
            return []
        if self._skip:
            data, self._skip = data[self._skip :], max(0, self._skip - len(data))
        self._rest += data
        found: list[Event] = []
        while len(self._rest) >= _PRELUDE.size and not self._skip:
            total, head, crc = _PRELUDE.unpack_from(self._rest)
            if crc != crc32(self._rest[:8]) or not _AROUND + head <= total <= LONGEST:
                self._broken = True
                self._rest.clear()
                return [*found, GARBLED]
            if total > MAX_EVENT:
                self.overflowed = True
                self._skip = max(0, total - len(self._rest))
            elif len(self._rest) < total:
                break
            else:
                found.append(_event(bytes(self._rest[:total]), head))
            del self._rest[:total]
        return found

    def pending(self, data: bytes) -> int:
        """How many bytes follow the last whole message; more than `data` has where its end lies before."""
        return len(data) + 1 if self._skip or self._broken else len(self._rest)

    def forget(self) -> None:
        self._rest.clear()

    def passed(self) -> None:
        """Nothing is read elsewhere."""

    def end(self) -> list[Event]:
        return []


def _event(message: bytes, head: int) -> Event:
    names = headers(message[_PRELUDE.size : _PRELUDE.size + head])
    payload = message[_PRELUDE.size + head : -_CRC.size]
    if names.get(b":message-type", b"event") == b"event":
        return names.get(b":event-type", b""), payload
    kind = names.get(b":exception-type", names.get(b":error-code", b"error")).decode("utf-8", "replace")
    facts = error_facts(decoded(payload))
    text = facts[1] if facts else names.get(b":error-message", b"").decode("utf-8", "replace")
    return b"error", msgspec.json.encode({"error": {"type": kind, "message": text}})


def headers(block: bytes) -> dict[bytes, bytes]:
    """The headers of a message that are strings; what cannot be read ends them."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at + 2 <= len(block):
        name = block[at + 1 : at + 1 + block[at]]
        at += 1 + block[at]
        kind = block[at] if at < len(block) else -1
        at += 1
        if kind in _TEXTS and at + 2 <= len(block):
            size = int.from_bytes(block[at : at + 2], "big")
            at += 2
        elif kind in _SIZES:
            size = _SIZES[kind]
        else:
            break
        if kind == _STRING:
            found[name] = block[at : at + size]
        at += size
    return found


def message(names: Iterable[tuple[bytes, bytes]], payload: bytes) -> bytes:
    """A message with these headers, all of them strings."""
    block = b"".join(
        [b"%c%b%c%b%b" % (len(name), name, _STRING, len(value).to_bytes(2, "big"), value) for name, value in names]
    )
    prelude = struct.pack(">II", _AROUND + len(block) + len(payload), len(block))
    whole = prelude + _CRC.pack(crc32(prelude)) + block + payload
    return whole + _CRC.pack(crc32(whole))


_JSON = (b":content-type", b"application/json")


def event(name: bytes, payload: bytes) -> bytes:
    return message([(b":event-type", name), _JSON, (b":message-type", b"event")], payload)


def exception(name: bytes, payload: bytes) -> bytes:
    return message([(b":exception-type", name), _JSON, (b":message-type", b"exception")], payload)
