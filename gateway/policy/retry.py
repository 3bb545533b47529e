"""Retry: whether a failed attempt is worth another one, when, and at whose cost. Pure: clock and chance are handed in.

Rules
1. What failed is one of a few causes. `REFUSED` said that it did not work on the call (429, 529, 5xx, a connection that
   never came to be); `BROKEN` may have worked on it (cut, nonsense, cut before content); `SLOW` may still do so;
   `CONTEXT` and `POLICY` would fail again on the same model; `FINAL` would fail again anywhere.
2. What the upstream says about waiting is obeyed: no attempt is made earlier, and where it is longer than the operator
   waits, none is made there at all.
3. A retry takes a token of its upstream's budget; every call of a client earns a share of one. So retries never add
   more than that share to the traffic of an upstream that fails, but for a small reserve.
"""

from __future__ import annotations

import datetime
import enum
import re
from collections.abc import Mapping

from msgspec import Struct

from gateway.errors import ConnectFailed, GatewayError, UpstreamTimeout
from gateway.ports import Blame

NANO = 10**9
RESERVE = 3.0  # retries that an upstream has without traffic
MOST = 10.0  # that it can have saved up
PASSING = frozenset((408, 409, 425, 429))  # errors that may be over the next time, beside those of servers,
LASTING = frozenset((501, 505))  # but for what a server never does
AGAIN = b"x-should-retry"
_NOT_AGAIN = frozenset(("tool_address_refused",))  # of what never connected
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+\Z")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
_NUMBER = re.compile(r"\d{1,18}(?:\.\d{1,9})?\Z")
_RESETS = tuple(
    (b"x-ratelimit-remaining" + kind, b"x-ratelimit-reset" + kind) for kind in (b"", b"-requests", b"-tokens")
) + tuple(
    (b"anthropic-ratelimit-" + kind + b"-remaining", b"anthropic-ratelimit-" + kind + b"-reset")
    for kind in (b"requests", b"tokens", b"input-tokens", b"output-tokens")
)


class Cause(enum.StrEnum):
    REFUSED = "refused"
    BROKEN = "broken"
    SLOW = "slow"
    CONTEXT = "context"
    POLICY = "policy"
    FINAL = "final"


class Verdict(Struct, frozen=True):
    """What a failed attempt means. `wait`: seconds that the upstream asked for; None: it said nothing of it."""

    cause: Cause
    wait: float | None = None
    here: bool = True  # the same upstream may be asked again


FINAL = Verdict(Cause.FINAL)


def of_fault(fault: GatewayError) -> Verdict:
    """Of an attempt that brought no answer, or broke off before anything of it was passed on."""
    if isinstance(fault, ConnectFailed):
        return FINAL if fault.code in _NOT_AGAIN else Verdict(Cause.REFUSED)
    if isinstance(fault, UpstreamTimeout):
        return Verdict(Cause.REFUSED if fault.code == "upstream_connect_timeout" else Cause.SLOW)
    return Verdict(Cause.SLOW if fault.code == "upstream_stalled" else Cause.BROKEN)


def of_answer(status: int, names: Mapping[bytes, bytes], blame: Blame, now: int) -> Verdict:
    """Of an answer that is an error. `now`: ns since the epoch."""
    if blame.kind in (Cause.CONTEXT, Cause.POLICY):
        return Verdict(Cause(blame.kind), here=False)
    advice = names.get(AGAIN, b"").strip().lower()
    if blame.kind == "quota":  # spent for longer than anybody waits: another key may have some
        return Verdict(Cause.REFUSED, here=False)
    if not (status in PASSING or (status >= 500 and status not in LASTING) or advice == b"true"):
        return FINAL
    wait = told(names, now) if status in (429, 503, 529) or b"retry-after" in names else None
    return Verdict(Cause.REFUSED, wait if wait is not None else blame.wait, here=advice != b"false")


def told(names: Mapping[bytes, bytes], now: int) -> float | None:
    """Seconds to wait, as the headers of an answer have them: the most precise one that can be read."""
    for name, unit in ((b"retry-after-ms", 0.001), (b"retry-after", 1.0)):
        if name in names:
            seconds = duration(names[name], now, unit)
            if seconds is not None:
                return seconds
    waits = [duration(names[reset], now, 1.0) for left, reset in _RESETS if reset in names and names.get(left) == b"0"]
    known = [wait for wait in waits if wait is not None]
    return max(known) if known else None


def duration(raw: bytes, now: int, unit: float = 1.0) -> float | None:
    """Seconds from a number, from "6m0s", an HTTP date or a time of RFC 3339; None for what is none of them."""
    text = raw.decode("latin-1").strip()
    if len(text) > 64:
        return None
    if _NUMBER.match(text):
        value = float(text) * unit
        if value < 10**9:
            return value
        return max(0.0, (value if value < 10**12 else value / 1000) - now / NANO)  # some state the time, s or ms
    if _DURATION.match(text):
        return sum([float(number) * _UNITS[part] for number, part in _PART.findall(text)])
    moment = _moment(text)
    return None if moment is None else max(0.0, moment - now / NANO)


def _moment(text: str) -> float | None:
    try:
        if text.endswith(" GMT"):
            parsed = datetime.datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT")
        else:
            parsed = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=datetime.UTC)
    return parsed.timestamp()


def backoff(tries: int, base: float, longest: float, chance: float) -> float:
    """Full jitter: anything between nothing and base × 2^tries, at most `longest`. `chance` is in [0, 1)."""
    return chance * min(longest, base * 2.0 ** min(tries, 16))


class RetryBudget:
    """Tokens of one upstream."""

    __slots__ = ("_share", "_tokens")

    def __init__(self, share: float, reserve: float = RESERVE) -> None:
        self._share = share
        self._tokens = reserve if share else 0.0

    @property
    def whole(self) -> bool:
        """Could one be sent now?"""
        return self._tokens >= 1.0

    def earn(self) -> None:
        """A client's call goes to this upstream."""
        tokens = self._tokens + self._share
        self._tokens = tokens if tokens < MOST else MOST

    def spend(self) -> bool:
        """May one more be sent?"""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
