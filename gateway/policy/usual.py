"""What calls of one key and model usually cost: a running 95th percentile, for soft budgets.

A stochastic quantile (Robbins and Monro 1951, with relative steps): a value above it moves it up by 19 parts, one below
down by one, so that it rests where one in twenty is above. It forgets: what came some hundred calls before is gone.
"""

from __future__ import annotations

from struct import Struct as Layout
from struct import error as LayoutError

from msgspec import Struct

SHARE = 0.95
STEP = 0.1  # of the quantile, per value
ENOUGH = 20  # calls, before it is trusted
_LAYOUT = Layout("<IQQ")
MOST = (1 << 63) - 1


class Usual(Struct, frozen=True, gc=False):
    nano: int  # nano-USD
    tokens: int


def usual_key(key: str, model: str) -> bytes:
    return f"usual:{len(key)}:{key}{model}".encode()


def usual_of(value: bytes | None) -> Usual | None:
    """None until enough calls were seen."""
    count, nano, tokens = _unpacked(value)
    return Usual(nano, tokens) if count >= ENOUGH else None


def fed(value: bytes | None, nano: int, tokens: int) -> bytes:
    """The memory with one more call in it."""
    count, usual_nano, usual_tokens = _unpacked(value)
    if count == 0:
        return _LAYOUT.pack(1, min(nano, MOST), min(tokens, MOST))
    return _LAYOUT.pack(min(count + 1, 1_000_000), _moved(usual_nano, nano), _moved(usual_tokens, tokens))


def _moved(usual: int, value: int) -> int:
    if value > usual:
        return min(max(usual + int(usual * STEP * SHARE), usual + 1), value, MOST)
    return max(usual - int(usual * STEP * (1 - SHARE)), 0)


def _unpacked(value: bytes | None) -> tuple[int, int, int]:
    if value is None:
        return 0, 0, 0
    try:
        return _LAYOUT.unpack(value)
    except LayoutError:
        return 0, 0, 0
