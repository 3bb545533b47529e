"""What providers have left of their rate limits, by what their answers say. Pure; times are ns since the epoch.

Rules
1. A reading is one limit of a target: what was left, of how much, and when all of it will be there again. Until then it
   fills evenly, as token buckets do; afterwards it says nothing any more. One without such a time is forgotten after a
   minute.
2. A target has the share of the limit that it has least of; where a limit has less than the call needs, none. What
   nothing is known of has all: so it is asked soon, and then known.
3. A 429 leaves nothing, for as long as it says.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from gateway.policy.retry import NANO, duration, told

STALE = 60 * NANO  # a reading that says nothing of its end
LONGEST = 3600 * NANO  # and one that says a later one than this
REFUSED = 429
BRIEFLY = NANO  # what a 429 means that names no time
TARGETS = 1024

X, A = b"x-ratelimit-", b"anthropic-ratelimit-"
_KINDS = ((b"requests", False), (b"tokens", True))
# kind, whether it counts tokens, and the headers of what is left, of the limit, and of its end
_NAMES: tuple[tuple[bytes, bool, bytes, bytes, bytes], ...] = (
    *[(kind, tokens, X + b"remaining-" + kind, X + b"limit-" + kind, X + b"reset-" + kind) for kind, tokens in _KINDS],
    *[
        (kind, tokens, A + kind + b"-remaining", A + kind + b"-limit", A + kind + b"-reset")
        for kind, tokens in (*_KINDS, (b"input-tokens", True))
    ],
)


class Reading(Struct):
    """One limit of a target, as its last answer has it."""

    left: int
    most: int
    tokens: bool  # it counts tokens, else requests
    at: int
    until: int

    def expect(self, now: int) -> float:
        """What is left by now."""
        if now >= self.until:
            return float(self.most)
        return self.left + (self.most - self.left) * max(0, now - self.at) / (self.until - self.at)


class Headroom:
    """What is left at each target, by its name."""

    def __init__(self) -> None:
        self._of: dict[str, dict[bytes, Reading]] = {}
        self._refused: dict[str, int] = {}  # until when

    def hear(self, target: str, status: int, names: Mapping[bytes, bytes], now: int) -> None:
        """The head of an answer. `names`: its headers, by lower-case name."""
        if len(self._of) + len(self._refused) >= TARGETS and target not in self._of:
            self._of.clear()  # names of models come from clients
            self._refused.clear()
        if status == REFUSED:
            self._refused[target] = now + min(LONGEST, int((told(names, now) or BRIEFLY / NANO) * NANO))
        elif target in self._refused:
            del self._refused[target]
        for kind, tokens, left, most, reset in _NAMES:
            number = _number(names.get(left, b""))
            if number is not None:
                known = self._of.setdefault(target, {})
                limit = _number(names.get(most, b"")) or (known[kind].most if kind in known else 0)
                known[kind] = Reading(number, max(number, limit), tokens, now, now + _lasts(names.get(reset, b""), now))

    def room(self, target: str, tokens: int, now: int) -> float:
        """The share of its limits that a target has left for a call of so many tokens, from 0 to 1."""
        if self._refused.get(target, 0) > now:
            return 0.0
        share = 1.0
        for reading in self._of.get(target, {}).values():
            left = reading.expect(now)
            if now < reading.until and left < (tokens if reading.tokens else 1):
                return 0.0
            share = min(share, left / reading.most if reading.most else 1.0)
        return share


def _number(stated: bytes) -> int | None:
    return int(stated) if stated.isdigit() and len(stated) < 16 else None


def _lasts(reset: bytes, now: int) -> int:
    """For how long a reading is believed, in ns."""
    seconds = duration(reset, now) if reset else None
    return STALE if seconds is None else min(LONGEST, int(seconds * NANO))
