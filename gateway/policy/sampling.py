"""Which traces to keep, decided when a call has ended.

Rules
1. Errors, slow, expensive and retried calls are kept always, and the first of every model and agent; so is what the
   caller has sampled. What the caller has not sampled is kept only for the first four reasons.
2. The rest shares `traces_per_second`: each call is kept with a probability that follows the traffic, decided by the
   trace id, so that calls of one trace stand or fall together.
3. A kept trace says with which probability it was kept: counting each 1/p times estimates all of them.
4. Both classes have a ceiling (a token bucket), so that a storm of errors cannot drown the exporter. What the ceiling
   takes away from rule 1 is a drop, and is said to be one.
"""

from __future__ import annotations

from msgspec import Struct

NS = 10**9
_SPACE = 1 << 56  # W3C level 2: the right-most seven bytes of a trace id are random
_SEEN_LIMIT = 4096
_ALWAYS_FACTOR, _ALWAYS_LEAST = 10, 100  # ceiling of rule 1, in traces per second: a multiple of the budget
_BURST_SECONDS = 10


class Seen(Struct):
    """What the decision looks at, in a call that has ended."""

    trace_id: str
    now: int  # ns since the epoch: when the call ended
    duration_ns: int
    cost: int  # pico-USD; 0 where unknown
    failed: bool
    retried: bool
    model: str
    agent: str
    parent: bool  # the caller sent a trace context
    sampled: bool  # with the sampled flag set


class Decision(Struct, frozen=True):
    """`keep`, why, and with which probability; `dropped`: to be kept always, but over the ceiling."""

    keep: bool
    reason: str
    probability: float
    dropped: bool = False


_OUT = Decision(False, "budget", 0.0)
_UNSAMPLED = Decision(False, "parent", 0.0)
_CEILING = Decision(False, "ceiling", 0.0, dropped=True)


class Bucket:
    """A token bucket on the time of the records; time that goes back counts as standing still."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate / NS
        self._burst = burst
        self._tokens = burst
        self._at = 0

    def take(self, now: int) -> bool:
        if now > self._at:
            if self._at:
                self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
            self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Probability:
    """Budget over traffic: the calls of the last second say how large a share of them the budget allows.

    Traffic that grows faster than seconds is noticed as soon as a window holds twice the budget.
    """

    def __init__(self, per_second: float) -> None:
        self._budget = per_second
        self._start = 0
        self._count = 0
        self.value = 1.0 if per_second > 0 else 0.0

    def next(self, now: int) -> float:
        """The probability for a call that ended at `now`."""
        self._count += 1
        elapsed = now - self._start
        if elapsed >= NS:
            rate = self._count * NS / elapsed
            self.value = min(1.0, self._budget / rate)
            self._start, self._count = now, 0
        elif self._count * self.value > 2 * self._budget + 1:
            self.value = min(self.value, self._budget / self._count)
        return self.value


class Sampler:
    """Holds the thresholds and what was seen so far; time comes in with the calls."""

    def __init__(self, traces_per_second: float, slow_seconds: float, expensive_usd: float) -> None:
        self._slow_ns = int(slow_seconds * NS)
        self._expensive = int(expensive_usd * 10**12)
        self._models: set[str] = set()
        self._agents: set[str] = set()
        self._share = Probability(traces_per_second)
        self._rest = Bucket(traces_per_second, max(1.0, traces_per_second * _BURST_SECONDS))
        always = max(_ALWAYS_LEAST, _ALWAYS_FACTOR * traces_per_second)
        self._always = Bucket(always, always * _BURST_SECONDS)
        self._kept = {
            reason: Decision(True, reason, 1.0) for reason in ("error", "slow", "cost", "retry", "first", "parent")
        }

    def decide(self, seen: Seen) -> Decision:
        reason = self._reason(seen)
        if reason:
            return self._kept[reason] if self._always.take(seen.now) else _CEILING
        if seen.parent and not seen.sampled:
            return _UNSAMPLED
        probability = self._share.next(seen.now)
        if _random(seen.trace_id) >= probability * _SPACE or not self._rest.take(seen.now):
            return _OUT
        return Decision(True, "budget", probability)

    def _reason(self, seen: Seen) -> str:
        first = self._first(seen)
        if seen.failed:
            return "error"
        if seen.duration_ns >= self._slow_ns:
            return "slow"
        if seen.cost >= self._expensive and seen.cost > 0:
            return "cost"
        if seen.retried:
            return "retry"
        if seen.parent:
            return "parent" if seen.sampled else ""
        return "first" if first else ""

    def _first(self, seen: Seen) -> bool:
        """Is the model or the agent new? Names beyond the limit are not remembered, and not new either."""
        new_model = seen.model not in self._models and len(self._models) < _SEEN_LIMIT
        new_agent = seen.agent not in self._agents and len(self._agents) < _SEEN_LIMIT
        if new_model:
            self._models.add(seen.model)
        if new_agent:
            self._agents.add(seen.agent)
        return new_model or new_agent


def _random(trace_id: str) -> int:
    """The random part of a trace id; of an id that is none, the largest value: kept only at probability 1."""
    try:
        return int(trace_id[-14:], 16) & (_SPACE - 1)
    except ValueError:
        return _SPACE - 1
