"""Features of a prompt as bytes: what a record carries from the worker that saw it to where it is learned from. Pure.

No word stands in it: 11 bits of a hash of each word, 16 of each pair. Half a kilobyte for a usual prompt.
"""

from __future__ import annotations

import math
import struct
from array import array

from gateway.policy.selection_features import Features

_HEAD = struct.Struct("<BHHf")  # numbers of measures, words, pairs; length
_HALF_MOST = 60_000.0


class NotFeatures(ValueError):
    """The bytes are none of `encode`."""


def encode(seen: Features) -> bytes:
    measures, words, pairs = seen.measures, seen.words, seen.pairs
    bounded = [min(_HALF_MOST, max(-_HALF_MOST, value)) for value in measures]
    counts = (len(measures), len(words), len(pairs))
    return _HEAD.pack(*counts, seen.length) + struct.pack(
        f"<{counts[0]}e{counts[1] + counts[2]}H", *bounded, *words, *pairs
    )


def decode(data: bytes) -> Features:
    """What `encode` was given, with measures of three digits. Raises NotFeatures."""
    try:
        measures, words, pairs, length = _HEAD.unpack_from(data)
        found = struct.unpack_from(f"<{measures}e{words + pairs}H", data, _HEAD.size)
    except struct.error as error:
        raise NotFeatures(str(error)) from None
    numbers = found[measures:]
    return Features(
        measures=found[:measures],
        words=array("H", numbers[:words]),  # two bytes each in place of forty: thousands are kept
        weight=1 / math.sqrt(words + 1),
        pairs=array("H", numbers[words:]),
        length=length,
    )
