"""What a price list says: its units, models, dated and conditional prices; and the plan that prices one call by them.

Rules (those of genai-prices 0.2, MIT, whose data this reads; `tests/unit/prices` holds both to the same answers)
1. A unit counts something: tokens of a direction, modality and kind, searches, seconds. A unit whose dimensions
   include another's counts a part of it: cache reads are part of the input.
2. A part that has a rate is taken out of its whole; a part that has none is billed with the whole. What is left of a
   unit once its priced parts are taken out is never less than nothing, whatever a provider reports.
3. A tier applies to all units of the call once the input tokens exceed its start.
4. Of a model's dated and daily prices the last one in force counts; if none is, the first.
5. A variant (service tier, batch, fast mode) replaces single rates when every pair of its `when` is in the context.

Rates are exact: whole numbers of pico-USD over one common denominator, rounded once per call.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from msgspec import Raw, Struct, field

from gateway.call import PICO_USD

FORMAT = 1
COMPONENTS = ("input", "cache_read", "cache_write", "output", "reasoning", "tools")
INPUT, CACHE_READ, CACHE_WRITE, OUTPUT, REASONING, TOOLS = range(6)
DAY = 86_400.0
FOREVER = math.inf
MOST = 10**15
"""A count above this is no count; so large a number could only come from a broken answer."""

# A rate in USD as decimal text, or its base and its tiers: ("2.5", [(200000, "5")]). Keyed by usage key.
Rate = str | tuple[str, list[tuple[int, str]]]
Rates = dict[str, Rate]
Match = Sequence[object]  # ("=", text) ("^", prefix) ("$", suffix) ("~", part) ("re", regex) ("|", [..]) ("&", [..])


class Unit(Struct, array_like=True, frozen=True):
    per: int  # a rate is for so many
    name: str  # price key in genai-prices
    dimensions: dict[str, str]

    def component(self) -> int:
        """The component of a cost that this unit belongs to."""
        family, kind = self.dimensions.get("family", ""), self.dimensions.get("token_type", "")
        if family in ("tool_calls", "requests", "rerank"):
            return TOOLS
        if kind in ("cache_read", "cache_write"):
            return CACHE_READ if kind == "cache_read" else CACHE_WRITE
        if self.dimensions.get("direction") == "output":
            return REASONING if kind == "reasoning" else OUTPUT
        return INPUT


class When(Struct, array_like=True, frozen=True, gc=False):
    """A constraint in time: from an instant on (epoch seconds), or daily between two times (seconds of the UTC day)."""

    since: float | None = None
    daily: tuple[float, float] | None = None

    def active(self, at: float) -> bool:
        if self.since is not None:
            return at >= self.since
        if self.daily is None:
            return True
        start, end = self.daily
        now = at % DAY
        return (now >= start or now < end) if end < start else start <= now < end

    def edges(self, at: float) -> Iterator[float]:
        """The instants around `at` at which `active` may change."""
        if self.since is not None:
            yield self.since
        elif self.daily is not None:
            midnight = at - at % DAY
            for day in (midnight - DAY, midnight, midnight + DAY):
                yield from (day + time for time in self.daily)


class Period(Struct, array_like=True, frozen=True, gc=False):
    when: When
    rates: Rates


class Variant(Struct, array_like=True, frozen=True, gc=False):
    context: dict[str, str]
    when: When
    rates: Rates


class Model(Struct, array_like=True, frozen=True, gc=False):
    """A model's prices. `least` is what a call is billed at the minimum, per usage key."""

    name: str = ""
    periods: list[Period] = []
    variants: list[Variant] = []
    least: dict[str, float] = {}


class Listing(Struct, array_like=True, frozen=True):
    id: str
    match: Match
    model: Raw  # a Model, decoded when first asked for


class Provider(Struct, array_like=True, frozen=True):
    id: str
    name: str
    api_pattern: str
    model_match: Match | None
    provider_match: Match | None
    fallback: list[str]
    models: Raw  # list[Listing], decoded when first asked for


class Catalogue(Struct, array_like=True, frozen=True):
    format: int
    source: str  # "genai-prices-0.2.3"
    units: dict[str, Unit]
    providers: list[Provider] = field(default_factory=list)


_TESTS: dict[str, Callable[[str, str], bool]] = {
    "=": str.__eq__,
    "^": str.startswith,
    "$": str.endswith,
    "~": str.__contains__,
    "re": lambda text, pattern: re.search(pattern, text) is not None,
}


def matches(match: Match, text: str) -> bool:
    """Does the clause match `text`, which must be in lower case (as the clause's own text is)?"""
    test, argument = match
    if isinstance(argument, str):
        return _TESTS[str(test)](text, argument)
    assert isinstance(argument, list | tuple)
    return (any if test == "|" else all)(matches(clause, text) for clause in argument)


def rates_at(model: Model, at: float, chosen: Sequence[Variant]) -> Rates:
    """The rates in force at `at` (epoch seconds) under the chosen variants; rules 4 and 5."""
    if not model.periods:
        return {}
    period = next((p for p in reversed(model.periods) if p.when.active(at)), model.periods[0])
    rates: Rates = {}
    for variant in chosen:
        if variant.when.active(at):
            rates = variant.rates | rates
    return period.rates | rates


def overlay(base: Rates, over: Rates, units: Mapping[str, Unit]) -> Rates:
    """`over` on top of `base`: what it sets, and the parts of what it sets, are its own; the rest stays."""
    set_ = [units[key].dimensions.items() for key in over if key in units]
    kept = {
        key: rate
        for key, rate in base.items()
        if key not in units or not any(whole <= units[key].dimensions.items() for whole in set_)
    }
    return kept | over


def span_of(model: Model, at: float) -> tuple[float, float]:
    """The half-open interval around `at` in which the rates of `model` stay the same."""
    times = [period.when for period in model.periods] + [variant.when for variant in model.variants]
    edges = [edge for when in times for edge in when.edges(at)]
    return max((e for e in edges if e <= at), default=-FOREVER), min((e for e in edges if e > at), default=FOREVER)


def pico(rate: str, per: int) -> Fraction:
    """Pico-USD for one unit."""
    return Fraction(rate) * PICO_USD / per


def exact(count: float) -> int | Fraction:
    """A count as an exact number: a float stands for its shortest decimal text, as providers wrote it."""
    if isinstance(count, int):
        return count
    return int(count) if count.is_integer() else Fraction(repr(count))


def rounded(costs: Sequence[int | Fraction], scale: int) -> list[int]:
    """Exact amounts in 1/scale pico-USD as whole pico-USD that sum to the rounded sum (halves up)."""
    before = 0
    sum_: int | Fraction = 0
    whole: list[int] = []
    for cost in costs:
        sum_ += cost
        after = int((2 * sum_ + scale) // (2 * scale))
        whole.append(after - before)
        before = after
    return whole


class Term(NamedTuple):
    """A priced unit in a plan."""

    key: str
    component: int
    parts: tuple[int, ...]  # positions of the priced units that are parts of this one
    rates: tuple[int, ...]  # one per bracket, in 1/scale pico-USD


class Plan:
    """The rates of one model in one interval of time and one context, ready to multiply.

    `core[bracket]` holds the rates of input, cache read, cache write, output and reasoning tokens, a missing one
    inherited from its whole; it serves the calls that report nothing else that has a rate (`keys`).
    """

    __slots__ = ("core", "fixed", "free", "keys", "least", "moves", "scale", "since", "starts", "terms", "until")

    def __init__(
        self,
        rates: Rates,
        units: Mapping[str, Unit],
        least: Mapping[str, float],
        since_until: tuple[float, float] = (-FOREVER, FOREVER),
    ) -> None:
        known = {key: rate for key, rate in rates.items() if key in units}
        self.starts = sorted({start for rate in known.values() if not isinstance(rate, str) for start, _ in rate[1]})
        floors = (-1, *self.starts)
        table = {key: [_rate(rate, units[key].per, floor) for floor in floors] for key, rate in known.items()}
        self.scale = math.lcm(*(value.denominator for row in table.values() for value in row))
        whole = {key: tuple(int(value * self.scale) for value in row) for key, row in table.items()}
        self.fixed = whole.pop("requests", (0,) * len(floors))
        self.free = not any(map(any, (self.fixed, *whole.values())))
        self.terms = _terms(whole, units)
        self.moves = _moves([term.key for term in self.terms])
        self.least = least
        self.keys = frozenset(whole).difference(CORE_KEYS) | frozenset(least)
        self.core = [tuple(_inherit(whole, bracket)) for bracket in range(len(floors))]
        self.since, self.until = since_until

    def costs(self, counts: Mapping[str, float], bracket: int) -> list[int] | None:
        """The cost per component in pico-USD.

        None where a priced count is no count: negative, not finite, or beyond MOST.
        """
        left: list[Any] = []  # whole numbers, but for durations
        sums: list[Any] = [0, 0, 0, 0, 0, self.fixed[bracket]]
        whole_numbers = self.scale == 1
        for key, component, parts, rates in self.terms:
            count: Any = counts.get(key)
            if count:
                if not 0 < count <= MOST:
                    return None
                if type(count) is not int:
                    count = exact(count)
                    whole_numbers = False
                for part in parts:
                    count -= left[part]
                if count > 0:
                    left.append(count)
                    sums[component] += count * rates[bracket]
                    continue
            left.append(0)
        for key, component, whole in self.moves:  # billed with its whole, but shown apart
            if count := counts[key]:
                if not 0 < count <= MOST:
                    return None
                count = min(exact(count), left[whole])
                left[whole] -= count
                cost = count * self.terms[whole].rates[bracket]
                sums[self.terms[whole].component] -= cost
                sums[component] += cost
        return sums if whole_numbers else rounded(sums, self.scale)


CORE_KEYS = {
    "input_tokens": INPUT,
    "cache_read_tokens": CACHE_READ,
    "cache_write_tokens": CACHE_WRITE,
    "output_tokens": OUTPUT,
    "output_reasoning_tokens": REASONING,
}
_WHOLE = {
    "cache_read_tokens": "input_tokens",
    "cache_write_tokens": "input_tokens",
    "output_reasoning_tokens": "output_tokens",
}


def _rate(rate: Rate, per: int, floor: int) -> Fraction:
    """The rate that applies where the input tokens are just above `floor`."""
    if isinstance(rate, str):
        return pico(rate, per)
    base, tiers = rate
    return pico(next((price for start, price in reversed(tiers) if start <= floor), base), per)


def _terms(whole: Mapping[str, tuple[int, ...]], units: Mapping[str, Unit]) -> tuple[Term, ...]:
    """Most specific units first, so that the parts of a unit are known before it."""
    order = sorted(whole, key=lambda key: (-len(units[key].dimensions), key))
    dims = [units[key].dimensions.items() for key in order]
    return tuple(
        Term(
            key=key,
            component=units[key].component(),
            parts=tuple(j for j in range(i) if dims[i] <= dims[j]),
            rates=whole[key],
        )
        for i, key in enumerate(order)
    )


def _moves(keys: Sequence[str]) -> list[tuple[str, int, int]]:
    """(key, component, position of its whole) of the core units that have no rate while their whole has one."""
    return [
        (key, CORE_KEYS[key], keys.index(whole)) for key, whole in _WHOLE.items() if key not in keys and whole in keys
    ]


def _inherit(whole: Mapping[str, tuple[int, ...]], bracket: int) -> Iterator[int]:
    for key in CORE_KEYS:
        row = whole.get(key) or whole.get(_WHOLE.get(key, ""))
        yield row[bracket] if row else 0
