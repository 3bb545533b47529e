"""Content codings, decoded piece by piece for metering only; what is relayed stays as it came.

`Decoder.feed` never raises: a body that does not decode, or that expands beyond its limit, turns the decoder off.
"""

from __future__ import annotations

import zlib
from typing import Protocol

import brotli
import zstandard

LIMIT = 64 * 1024 * 1024  # decoded bytes of one body that are still read
STEP = 1024 * 1024  # decoded bytes taken at a time
FLOOR = 16 * 1024 * 1024  # below, nothing is suspicious
RATIO = 200  # above, what expands to more than so many times its size is a bomb
BITE = 512  # bytes of zstd at a time: the library has no output limit, and four bytes may stand for 128 KiB


def is_bomb(taken: int, given: int) -> bool:
    return given > FLOOR and given > min(LIMIT, taken * RATIO)


class Decoder(Protocol):
    broken: bool

    def feed(self, data: bytes) -> bytes: ...


class Identity:
    broken = False

    def feed(self, data: bytes) -> bytes:
        return data


class Undecodable:
    """An unknown coding: nothing can be read."""

    broken = True

    def feed(self, data: bytes) -> bytes:
        return b""


class Zlib:
    """gzip, and deflate with or without its zlib wrapper (RFC 9110 8.4.1.2)."""

    def __init__(self, raw_allowed: bool) -> None:
        self.broken = False
        self._decoder = zlib.decompressobj(47)
        self._raw_allowed = raw_allowed
        self._lead = b""  # of the wrapper's two bytes, the first may come alone
        self._taken = self._total = 0

    def feed(self, data: bytes) -> bytes:
        if self.broken:
            return b""
        self._taken += len(data)
        out: list[bytes] = []
        try:
            while data and not is_bomb(self._taken, self._total):
                piece = self._decode(data)
                self._total += len(piece)
                out.append(piece)
                data = self._decoder.unconsumed_tail
                if self._decoder.eof and self._decoder.unused_data:
                    data = self._decoder.unused_data  # gzip members may follow one another
                    self._decoder = zlib.decompressobj(47)
        except zlib.error:
            self.broken = True
        self.broken = self.broken or is_bomb(self._taken, self._total)
        return b"" if self.broken else b"".join(out)

    def _decode(self, data: bytes) -> bytes:
        try:
            piece = self._decoder.decompress(data, STEP)
        except zlib.error:
            if not self._raw_allowed or self._total:
                raise
            self._raw_allowed = False
            self._decoder = zlib.decompressobj(-15)
            return self._decoder.decompress(self._lead + data, STEP)
        if len(self._lead) < 2:
            self._lead += data[:2]
        return piece


class Brotli:
    def __init__(self) -> None:
        self.broken = False
        self._decoder = brotli.Decompressor()
        self._taken = self._total = 0

    def feed(self, data: bytes) -> bytes:
        if self.broken:
            return b""
        self._taken += len(data)
        out: list[bytes] = []
        try:
            piece = self._decoder.process(data, output_buffer_limit=STEP)
            while piece:
                out.append(piece)
                self._total += len(piece)
                if is_bomb(self._taken, self._total) or self._decoder.can_accept_more_data():
                    break
                piece = self._decoder.process(b"", output_buffer_limit=STEP)
        except brotli.error:
            self.broken = True
        self.broken = self.broken or is_bomb(self._taken, self._total)
        return b"" if self.broken else b"".join(out)


class Zstd:
    def __init__(self) -> None:
        self.broken = False
        self._decoder = zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj(read_across_frames=True)
        self._taken = self._total = 0

    def feed(self, data: bytes) -> bytes:
        if self.broken:
            return b""
        self._taken += len(data)
        out: list[bytes] = []
        try:
            for start in range(0, len(data), BITE):
                piece = self._decoder.decompress(data[start : start + BITE])
                out.append(piece)
                self._total += len(piece)
                if is_bomb(self._taken, self._total):
                    break
        except zstandard.ZstdError:
            self.broken = True
        self.broken = self.broken or is_bomb(self._taken, self._total)
        return b"" if self.broken else b"".join(out)


PLAIN = Identity()  # it keeps nothing: one is enough


def decoder_for(coding: bytes) -> Decoder:
    """The decoder of a Content-Encoding header value."""
    if not coding:
        return PLAIN
    name = coding.strip().lower()
    if not name or name == b"identity":
        return PLAIN
    if name in (b"gzip", b"x-gzip"):
        return Zlib(raw_allowed=False)
    if name == b"deflate":
        return Zlib(raw_allowed=True)
    if name == b"br":
        return Brotli()
    if name == b"zstd":
        return Zstd()
    return Undecodable()
