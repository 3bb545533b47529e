"""How fast a run calls and spends, against what is usual: the run's own past minutes, or those of its agent. Pure.

Theory of operation
* Minutes in which nothing happened do not count: a run that waits for a person has no rate.
* Rates of one program spread over orders of magnitude, so they are compared by their logarithm.
* What is usual is a median, and how far it spreads a median of distances (MAD): a runaway cannot pull them along, as it
  would a mean. Both are followed by steps of a fixed size towards the newer value (stochastic approximation of a
  quantile, Robbins and Monro 1951), so that 5 bytes hold them; a minute moves them by at most 4 % once they are known.
"""

from __future__ import annotations

from math import log2
from struct import Struct as Layout
from struct import error as LayoutError

from msgspec import Struct, field

MINUTE = 60 * 10**9
KNOWN = 10  # minutes after which a baseline counts
MINIMUM_CALLS = 60  # in a minute: less is no rush, whatever is usual
MINIMUM_SPENT = 1_000_000  # micro-USD in a minute
SPREADS = 4 * 1.4826  # MADs above the median; 1.4826 MAD of a normal distribution are its deviation
_ONE = 256  # of a fixed-point logarithm
_SLOWEST = 0.05  # step towards a newer value, in powers of two
_EAGER = 3  # how much faster the median goes at first
_LEAST_SPREAD = 0.25
_TWO = Layout("<hHhHB")
_PULSE = Layout("<IHI")
_MOST = 0xFFFF_FFFF


class Usual(Struct, gc=False):
    """Median and MAD of log2 of a quantity per minute."""

    median: float = 0.0
    spread: float = 1.0

    def feed(self, value: float, known: int) -> None:
        """`known`: how many values came before."""
        if not known:
            self.median = value
            return
        step = max(_SLOWEST, 1 / (known + 1))
        distance = abs(value - self.median)
        self.spread = max(_LEAST_SPREAD, self.spread + (step if distance > self.spread else -step))
        step = max(_SLOWEST, _EAGER / (known + 1))  # the first value may have been a wild one
        if distance <= step:
            self.median = value
        else:
            self.median += step if value > self.median else -step

    def exceeded(self, amount: int, factor: float) -> bool:
        return log2(amount) > self.median + max(log2(factor), SPREADS * self.spread)


class Baseline(Struct, gc=False):
    """What is usual in a minute of a run of this agent, or of one run."""

    minutes: int = 0  # that were fed, 255 at most
    calls: Usual = field(default_factory=Usual)
    spent: Usual = field(default_factory=Usual)  # micro-USD

    def feed(self, calls: int, spent: int) -> None:
        self.calls.feed(log2(max(calls, 1)), self.minutes)
        self.spent.feed(log2(max(spent, 1)), self.minutes)
        self.minutes = min(self.minutes + 1, 255)

    @property
    def known(self) -> bool:
        return self.minutes >= KNOWN

    def pack(self) -> bytes:
        return _TWO.pack(
            _fixed(self.calls.median),
            _fixed(self.calls.spread),
            _fixed(self.spent.median),
            _fixed(self.spent.spread),
            self.minutes,
        )


def baseline(value: bytes | None, at: int = 0) -> Baseline:
    """Unpack; a fresh one for None and for what is none."""
    try:
        calls, calls_spread, spent, spent_spread, minutes = _TWO.unpack_from(value or b"", at)
    except LayoutError:
        return Baseline(0, Usual(), Usual())
    return Baseline(
        minutes, Usual(calls / _ONE, calls_spread / _ONE or 1.0), Usual(spent / _ONE, spent_spread / _ONE or 1.0)
    )


def _fixed(value: float) -> int:
    return max(0, min(0x7FFF, round(value * _ONE)))


class Pulse(Struct, gc=False):
    """The current minute of a run, and what was usual before."""

    minute: int = 0  # since the epoch
    calls: int = 0  # that ended in it
    spent: int = 0  # micro-USD
    usual: Baseline = field(default_factory=Baseline)

    def beat(self, now: int, nano_usd: int) -> tuple[int, int] | None:
        """A call has ended at `now` (ns) and cost so much. Gives (calls, micro-USD) of a minute that is over by that:
        what the agent's baseline is to be fed with."""
        minute = now // MINUTE
        over = None
        if minute > self.minute:
            if self.calls:
                over = (self.calls, self.spent)
                self.usual.feed(*over)
            self.minute, self.calls, self.spent = minute, 0, 0
        self.calls = min(self.calls + 1, 0xFFFF)
        self.spent = min(self.spent + nano_usd // 1000, _MOST)
        return over

    def pack(self) -> bytes:
        return _PULSE.pack(self.minute & _MOST, self.calls, self.spent) + self.usual.pack()


def busy(value: bytes | None, now: int) -> bool:
    """Is this minute of the run one in which a rate could alarm at all? Only then its pulse is worth unpacking."""
    try:
        minute, calls, spent = _PULSE.unpack_from(value or b"")
    except LayoutError:
        return False
    return bool((calls >= MINIMUM_CALLS or spent >= MINIMUM_SPENT) and minute == now // MINUTE)


def pulse(value: bytes | None) -> Pulse:
    """Unpack; a fresh one for None and for what is none."""
    try:
        minute, calls, spent = _PULSE.unpack_from(value or b"")
    except LayoutError:
        return Pulse(0, 0, 0, Baseline(0, Usual(), Usual()))
    return Pulse(minute, calls, spent, baseline(value, _PULSE.size))
