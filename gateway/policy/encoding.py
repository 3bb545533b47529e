"""Content codings, decoded piece by piece for metering only; what is relayed stays as it came.

`Decoder.feed` never raises: a body that does not decode, or that expands beyond its limit, turns the decoder off.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
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


class Bounded(ABC):
    """A decoder that stops where its body does not decode or expands too far. `errors` are those of its library."""

    errors: type[Exception]

    def __init__(self) -> None:
        self.broken = False
        self._taken = self._total = 0

    def feed(self, data: bytes) -> bytes:
        if self.broken:
            return b""
        self._taken += len(data)
        out: list[bytes] = []
        try:
            for piece in self._pieces(data):
                out.append(piece)
                self._total += len(piece)
                if is_bomb(self._taken, self._total):
                    self.broken = True
                    break
        except self.errors:
            self.broken = True
        return b"" if self.broken else b"".join(out)

    @abstractmethod
    def _pieces(self, data: bytes) -> Iterator[bytes]:
        """Decode no more than is asked for."""


class Zlib(Bounded):
    """gzip, and deflate with or without its zlib wrapper (RFC 9110 8.4.1.2)."""

    errors = zlib.error

    def __init__(self, raw_allowed: bool) -> None:
        super().__init__()
        self._decoder = zlib.decompressobj(47)
        self._raw_allowed = raw_allowed
        self._lead = b""  # of the wrapper's two bytes, the first may come alone

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        while data:
            yield self._decode(data)
            data = self._decoder.unconsumed_tail
            if self._decoder.eof and self._decoder.unused_data:
                data = self._decoder.unused_data  # gzip members may follow one another
                self._decoder = zlib.decompressobj(47)

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


class Brotli(Bounded):
    errors = brotli.error

    def __init__(self) -> None:
        super().__init__()
        self._decoder = brotli.Decompressor()

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        piece = self._decoder.process(data, output_buffer_limit=STEP)
        while piece:
            yield piece
            if self._decoder.can_accept_more_data():
                break
            piece = self._decoder.process(b"", output_buffer_limit=STEP)


class Zstd(Bounded):
    errors = zstandard.ZstdError

    def __init__(self) -> None:
        super().__init__()
        self._decoder = zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj(read_across_frames=True)

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), BITE):
            yield self._decoder.decompress(data[start : start + BITE])


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
