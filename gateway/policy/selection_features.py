"""What a prompt shows of how hard it is: a few measures and hashed words. Pure; no word is kept as text.

Neither carries over between subjects as the length does: a scope learns them for itself. Long prompts are read at both
ends only, so that the cost is bounded: about 0.1 ms at most.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from zlib import crc32

from msgspec import Struct

BITS = 11
BUCKETS = 1 << BITS
PAIRS = 1 << 16
HEAD, TAIL = 600, 300  # characters read of a longer prompt

_WORD = re.compile(r"[a-z]+|[0-9]+|\S")  # twice as fast as with the classes of Unicode
_DIGITS, _OPERATORS, _BRACKETS = b"0123456789", b"=+-*/^<>\\", b"(){}[];"
_CAPITALS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_KINDS = (
    _set("def class function import return code python java sql algorithm array compile bug api async assert string `"),
    _set("prove proof derive explain reason reasoning calculate compute many much therefore why if step steps solve"),
    _set(
        "theorem integral matrix molecule statute enzyme protocol kernel quantum equation derivative probability "
        "constitutional function court plaintiff defendant"
    ),
    _set("what define who when list name where"),
    _set("not no never except false incorrect least wrong"),
)


class Situation(Struct, frozen=True, gc=False):
    """What is known of a call beside its prompt."""

    tools: int = 0  # definitions of tools that it brings
    step: int = 0
    request_class: str = ""


ALONE = Situation()


class Features(Struct, frozen=True, gc=False):
    """`measures`: dense, each about -2 to 2, the first is 1. `words`: buckets, each once, all of the same weight."""

    measures: tuple[float, ...]
    words: Sequence[int]
    weight: float  # of each word
    pairs: Sequence[int]  # buckets of neighbouring words, each once: how familiar a prompt is
    length: float  # the logarithm of the number of characters: the baseline that must not be missed


def features(prompt: str, situation: Situation = ALONE, embedding: Sequence[float] = ()) -> Features:
    """`embedding`: of unit length, where there is one; it comes behind the measures."""
    text = prompt if len(prompt) <= HEAD + TAIL else f"{prompt[:HEAD]}\n{prompt[-TAIL:]}"
    lower = text.lower()
    words = _WORD.findall(lower)
    hashes = list(map(_hash, words))
    extra = [f"^{word}" for word in words[:3]]
    extra.append(f"class={situation.request_class}")
    extra.append(f"tools={min(3, situation.tools.bit_length())} step={min(4, situation.step.bit_length())}")
    once = set(hashes)
    once.update(map(_hash, extra))
    buckets = tuple({value & BUCKETS - 1 for value in once})
    return Features(
        measures=(*_measures(prompt, text, lower, set(words)), *embedding),
        words=buckets,
        weight=1 / math.sqrt(len(buckets) + 1),
        pairs=tuple({(first * 31 + second) & PAIRS - 1 for first, second in set(pairwise(hashes))}),
        length=math.log1p(len(prompt)),
    )


@lru_cache(maxsize=32_768)
def _hash(word: str) -> int:
    return crc32(b"0" if word.isdigit() else word.encode(errors="replace"))


def _measures(prompt: str, text: str, lower: str, found: set[str]) -> tuple[float, ...]:
    size = len(text) or 1
    plain = text.encode("ascii", "ignore")
    parts = lower.split()
    many = math.log1p(len(parts) * len(prompt) / size) - 4
    return (
        1.0,
        many,
        many * many / 2 - 0.5,
        math.log1p(size / (len(parts) or 1)) - 1.8,
        _share(_DIGITS, plain, size),
        _share(_OPERATORS, plain, size),
        _share(_CAPITALS, plain, size) - 0.5,
        _share(_BRACKETS, plain, size),
        math.sqrt(1 - len(plain) / size) * 4 if text else 0.0,
        math.log1p(text.count("\n")) - 1.5,
        math.log1p(text.count(",")) - 1,
        math.log1p(text.count("$")),
        min(3, text.count("?")) / 1.5,
        1.0 if "_" in text else 0.0,
        len(set(parts)) / (len(parts) or 1) * 3 - 2.4,
        *[math.log1p(len(kind & found)) for kind in _KINDS],
    )


def _share(kind: bytes, plain: bytes, size: int) -> float:
    return math.sqrt((len(plain) - len(plain.translate(None, kind))) / size) * 4
