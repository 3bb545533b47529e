"""Content codings, decoded step by step for reading only; what is relayed stays as it came.

Rules
1. A decoder never raises: a body that does not decode, or that expands beyond its limit, turns it off.
2. `begin` and `more` do one step each, of bounded work whatever the data is: up to STEP decoded bytes, or CALLS calls
   of the library. Who must not be kept from other work does something else between two steps (ports.Turns).
3. The libraries get small bites. They copy what they have not used: of a large piece, again at every step.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Protocol

import brotli
import zstandard

LIMIT = 64 * 1024 * 1024  # decoded bytes of one body that are still read
STEP = 256 * 1024  # decoded bytes taken at a time
CALLS = 256  # calls of the library at a time: an empty member of gzip costs one, and gives nothing
FLOOR = 16 * 1024 * 1024  # below, nothing is suspicious
RATIO = 200  # above, what expands to more than so many times its size is a bomb
BITE = 4096  # bytes given to the library at a time
ZSTD_BITE = 512  # it has no output limit, and four bytes may stand for 128 KiB


def is_bomb(taken: int, given: int) -> bool:
    return given > FLOOR and given > min(LIMIT, taken * RATIO)


class Decoder(Protocol):
    broken: bool
    behind: bool  # there is more to decode of what was given

    def begin(self, data: bytes) -> bytes:
        """The first step with this data; not while it is behind."""

    def more(self) -> bytes:
        """The next step."""


class Identity:
    broken = behind = False

    def begin(self, data: bytes) -> bytes:
        return data

    def more(self) -> bytes:
        return b""


class Undecodable:
    """An unknown coding: nothing can be read."""

    broken, behind = True, False

    def begin(self, data: bytes) -> bytes:
        return b""

    def more(self) -> bytes:
        return b""


class Bounded(ABC):
    """A decoder that stops where its body does not decode or expands too far. `errors` are those of its library."""

    errors: type[Exception]
    bite = BITE

    def __init__(self) -> None:
        self.broken = self.behind = False
        self._taken = self._total = 0
        self._pieces: Iterator[bytes] = iter(())

    def begin(self, data: bytes) -> bytes:
        if self.broken:
            return b""
        self._taken += len(data)
        self._pieces = self._bitten(data)
        return self.more()

    def more(self) -> bytes:
        out: list[bytes] = []
        size = 0
        self.behind = False
        try:
            for calls, piece in enumerate(self._pieces, 1):
                out.append(piece)
                size += len(piece)
                if size >= STEP or calls >= CALLS:
                    self.behind = True
                    break
        except self.errors:
            self.broken = True
        self._total += size
        if self.broken or is_bomb(self._taken, self._total):
            self.broken, self.behind = True, False
            self._pieces = iter(())
            return b""
        return out[0] if len(out) == 1 else b"".join(out)

    def _bitten(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), self.bite):
            yield from self._decoded(data[start : start + self.bite])

    @abstractmethod
    def _decoded(self, data: bytes) -> Iterator[bytes]:
        """What a bite gives: a piece for each call of the library."""


class Zlib(Bounded):
    """gzip, and deflate with or without its zlib wrapper (RFC 9110 8.4.1.2)."""

    errors = zlib.error

    def __init__(self, raw_allowed: bool) -> None:
        super().__init__()
        self._decoder = zlib.decompressobj(47)
        self._raw_allowed = raw_allowed
        self._lead = b""  # of the wrapper's two bytes, the first may come alone
        self._given = False  # something was decoded: then there was a wrapper

    def _decoded(self, data: bytes) -> Iterator[bytes]:
        while data:
            yield self._decompress(data)
            data = self._decoder.unconsumed_tail
            if self._decoder.eof and self._decoder.unused_data:
                data = self._decoder.unused_data  # gzip members may follow one another
                self._decoder = zlib.decompressobj(47)

    def _decompress(self, data: bytes) -> bytes:
        try:
            piece = self._decoder.decompress(data, STEP)
        except zlib.error:
            if not self._raw_allowed or self._given:
                raise
            self._raw_allowed = False
            self._decoder = zlib.decompressobj(-15)
            return self._decoder.decompress(self._lead + data, STEP)
        if len(self._lead) < 2:
            self._lead += data[:2]
        self._given = self._given or bool(piece)
        return piece


class Brotli(Bounded):
    errors = brotli.error

    def __init__(self) -> None:
        super().__init__()
        self._decoder = brotli.Decompressor()

    def _decoded(self, data: bytes) -> Iterator[bytes]:
        piece = self._decoder.process(data, output_buffer_limit=STEP)
        while piece:  # that it can accept more does not say that it gave all
            yield piece
            if self._decoder.is_finished():
                break
            piece = self._decoder.process(b"", output_buffer_limit=STEP)


class Zstd(Bounded):
    errors = zstandard.ZstdError
    bite = ZSTD_BITE

    def __init__(self) -> None:
        super().__init__()
        self._decoder = zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj(read_across_frames=True)

    def _decoded(self, data: bytes) -> Iterator[bytes]:
        yield self._decoder.decompress(data)


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
