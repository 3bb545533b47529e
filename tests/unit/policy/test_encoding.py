from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.encoding import BITE, CALLS, FLOOR, LIMIT, STEP, Decoder, Identity, decoder_for, is_bomb

TEXT = b'{"model":"gpt-4o","messages":[{"role":"user","content":"' + b"words and more words " * 300 + b'"}]}'
CODERS: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "gzip": (b"gzip", gzip.compress),
    "gzip members": (b"x-gzip", lambda data: gzip.compress(data[:99]) + gzip.compress(data[99:])),
    "deflate": (b"deflate", zlib.compress),
    "raw deflate": (b"deflate", lambda data: zlib.compress(data, wbits=-15)),
    "br": (b"br", brotli.compress),
    "zstd": (b"zstd", zstandard.ZstdCompressor().compress),
    "zstd frames": (
        b"ZSTD ",
        lambda data: zstandard.ZstdCompressor().compress(data[:99]) + zstandard.ZstdCompressor().compress(data[99:]),
    ),
    "identity": (b"identity", bytes),
    "none": (b"", bytes),
}


def steps(decoder: Decoder, data: bytes) -> Iterator[bytes]:
    yield decoder.begin(data)
    while decoder.behind:
        yield decoder.more()


def feed(decoder: Decoder, data: bytes) -> bytes:
    out = b"".join(steps(decoder, data))
    return b"" if decoder.broken else out


@pytest.mark.parametrize("name", CODERS)
@pytest.mark.parametrize("step", [1, 2, 7, 1000, 10**9])
def test_pieces_of_any_size(name: str, step: int) -> None:
    coding, encode = CODERS[name]
    packed = encode(TEXT)
    decoder = decoder_for(coding)
    out = b"".join(feed(decoder, packed[at : at + step]) for at in range(0, len(packed), step))
    assert out == TEXT
    assert not decoder.broken


@pytest.mark.parametrize("name", [name for name in CODERS if name not in {"identity", "none"}])
@given(st.binary(max_size=300), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_nothing_makes_a_decoder_raise(name: str, noise: bytes, at: int) -> None:
    coding, encode = CODERS[name]
    packed = encode(TEXT)
    decoder = decoder_for(coding)
    for piece in (packed[:at], noise, packed[at:], b""):
        assert isinstance(feed(decoder, piece), bytes)
    if decoder.broken:
        assert feed(decoder, packed) == b"", "broken is broken"


@pytest.mark.parametrize("name", ["gzip", "deflate", "raw deflate", "br", "zstd"])
def test_a_bomb_is_given_up_early(name: str) -> None:
    coding, encode = CODERS[name]
    decoder = decoder_for(coding)
    assert feed(decoder, encode(bytes(4 * FLOOR))) == b""
    assert decoder.broken


@pytest.mark.parametrize("name", ["gzip", "br", "zstd"])
def test_also_in_pieces(name: str) -> None:
    coding, encode = CODERS[name]
    packed = encode(bytes(4 * FLOOR))
    decoder = decoder_for(coding)
    given_out = sum(len(feed(decoder, packed[at : at + 16])) for at in range(0, len(packed), 16))
    assert decoder.broken
    assert given_out < 2 * FLOOR


@pytest.mark.parametrize("name", ["gzip", "br", "zstd"])
def test_much_repetition_is_no_bomb(name: str) -> None:
    coding, encode = CODERS[name]
    data = TEXT * 1500
    decoder = decoder_for(coding)
    assert len(feed(decoder, encode(data))) == len(data)
    assert not decoder.broken


@pytest.mark.parametrize(
    ("taken", "given", "bomb"),
    [
        (1, FLOOR, False),
        (1, FLOOR + 1, True),
        (10**6, 2 * FLOOR, False),
        (10**9, LIMIT + 1, True),
        (10**9, LIMIT, False),
    ],
)
def test_what_is_a_bomb(taken: int, given: int, bomb: bool) -> None:
    assert is_bomb(taken, given) is bomb


@pytest.mark.parametrize("coding", [b"gzip, br", b"compress", b"aws-chunked", b"\xff"])
def test_what_is_unknown_cannot_be_read(coding: bytes) -> None:
    decoder = decoder_for(coding)
    assert (decoder.broken, feed(decoder, b"x")) == (True, b"")


def test_what_is_plain_is_told_apart() -> None:
    assert isinstance(decoder_for(b" Identity "), Identity)


@pytest.mark.parametrize("name", ["gzip", "gzip members", "deflate", "raw deflate", "br", "zstd", "zstd frames"])
def test_each_step_is_of_bounded_size(name: str) -> None:
    coding, encode = CODERS[name]
    data = TEXT * 300
    decoder = decoder_for(coding)
    found = list(steps(decoder, encode(data)))
    assert b"".join(found) == data
    assert not decoder.broken
    one = 16 * 1024 * 1024 if coding.lower().startswith(b"zstd") else STEP  # what one bite of it can stand for
    assert max(map(len, found)) < STEP + one
    assert len(found) > len(data) // (STEP + one)


def test_members_that_give_nothing_are_steps_too() -> None:
    decoder = decoder_for(b"gzip")
    found = list(steps(decoder, gzip.compress(b"") * (4 * CALLS) + gzip.compress(b"end")))
    assert (b"".join(found), decoder.broken) == (b"end", False)
    assert len(found) >= 4


def test_the_library_is_given_small_bites(monkeypatch: pytest.MonkeyPatch) -> None:
    """It copies what it has not used: of a large piece, with each of its thousand members once more."""
    real, largest = zlib.decompressobj, 0

    class Watching:
        def __init__(self, wbits: int) -> None:
            self._inner = real(wbits)

        def decompress(self, data: bytes, most: int) -> bytes:
            nonlocal largest
            largest = max(largest, len(data))
            return self._inner.decompress(data, most)

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

    monkeypatch.setattr(zlib, "decompressobj", Watching)
    assert feed(decoder_for(b"gzip"), gzip.compress(b"x") * 1000) == b"x" * 1000
    assert 0 < largest <= BITE
