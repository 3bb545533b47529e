"""How an entry is written down: its facts as msgpack, its body as it came or, where larger, compressed."""

from __future__ import annotations

import msgspec
import zstandard

from gateway.ports import Entry

LARGE = 2048  # bytes of a body from which on it is compressed
MOST_BODY = 256 * 1024 * 1024

_facts = msgspec.msgpack.Encoder().encode
_entry = msgspec.msgpack.Decoder(Entry).decode
FAULTS = (TypeError, ValueError, msgspec.MsgspecError, zstandard.ZstdError)


def written(entry: Entry) -> tuple[bool, bytes, bytes]:
    """Is the body compressed? The facts, and the body."""
    body, coded = entry.body, len(entry.body) >= LARGE
    if coded:
        body = zstandard.ZstdCompressor(level=3).compress(body)
    return coded, _facts(msgspec.structs.replace(entry, body=b"")), body


def read(coded: bool, facts: bytes, body: bytes) -> Entry:
    """Raises one of FAULTS."""
    if coded:
        size = zstandard.frame_content_size(body)
        if not 0 <= size <= MOST_BODY:
            raise ValueError("a body of no known size, or too large")
        body = zstandard.ZstdDecompressor().decompress(body)
    return msgspec.structs.replace(_entry(facts), body=body)


def joined(entry: Entry) -> bytes:
    """All of it as one string."""
    coded, facts, body = written(entry)
    return b"%d%08x%b%b" % (coded, len(facts), facts, body)


def split(text: bytes) -> Entry:
    """Raises one of FAULTS."""
    size = int(text[1:9], 16)
    return read(text[:1] == b"1", text[9 : 9 + size], text[9 + size :])
