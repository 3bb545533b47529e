"""Tokens of the fake upstream: a lossless, deterministic split of text, and a prompt cache that counts in them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

_PIECE = re.compile(r" ?[^\W\d_]{1,7}|\d{1,3}| ?[^\w\s]|\s+|_")


def tokens(text: str) -> list[str]:
    """Pieces of `text` that join to it again; about four characters each in English, as with real tokenisers."""
    return _PIECE.findall(text)


def count(text: str) -> int:
    return sum(1 for _ in _PIECE.finditer(text))


class PrefixCache:
    """Automatic prompt caching: prefixes seen before, in steps of `step` tokens from `minimum` on."""

    def __init__(self, minimum: int = 1024, step: int = 128) -> None:
        self._minimum, self._step = minimum, step
        self._seen: set[bytes] = set()

    def match(self, scope: str, prompt: str) -> int:
        """Tokens of the longest known prefix of `prompt`; all its prefixes are known from now on."""
        pieces = tokens(prompt)
        digest = hashlib.sha256(scope.encode())
        hit, start = 0, 0
        for end in range(self._step, len(pieces) + 1, self._step):
            digest.update("".join(pieces[start:end]).encode("utf-8", "surrogatepass"))
            start = end
            if end < self._minimum:
                continue
            key = digest.digest()
            if key in self._seen:
                hit = end
            self._seen.add(key)
        return hit


class BreakpointCache:
    """Explicit prompt caching: a prompt cut at marked blocks; a marked prefix is written once, then read."""

    def __init__(self, minimum: int = 1024) -> None:
        self._minimum = minimum
        self._seen: set[bytes] = set()

    def match(self, scope: str, blocks: Sequence[tuple[str, str]]) -> tuple[int, dict[str, int]]:
        """(tokens read, tokens written by ttl) for blocks of (text, ttl), where ttl is "" without a mark."""
        digest = hashlib.sha256(scope.encode())
        total = read = 0
        marks: list[tuple[bytes, int, str]] = []
        for text, ttl in blocks:
            digest.update(text.encode("utf-8", "surrogatepass"))
            total += count(text)
            if ttl and total >= self._minimum:
                marks.append((digest.digest(), total, ttl))
        for key, upto, _ in marks:
            if key in self._seen:
                read = upto
        written: dict[str, int] = {}
        base = read
        for key, upto, ttl in marks:
            if upto > base:
                written[ttl] = written.get(ttl, 0) + upto - base
                base = upto
            self._seen.add(key)
        return read, written
