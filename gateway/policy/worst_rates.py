"""The dearest rates that may apply to a call, per token: asked of the price table once per model, tier and half hour.

A price table says what a given usage costs. Here it is asked for usages of one kind each, at the size of the call, so
that the tier of long contexts counts; the dearest rate of each side is kept, in whole pico-USD, rounded up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct

from gateway.call import Usage
from gateway.ports import Prices

REMEMBERED = 4096
HALF_HOUR = 1800  # prices that change with the time of day change at its full or half hours
MANY = 1_000_000
USES = ("web_searches", "code_executions", "storage_searches", "social_searches")


Cost = Callable[..., "int | None"]


class Features(Struct, frozen=True, gc=False):
    """What a request asks for that may make it dearer."""

    hour: bool = False  # to be cached for an hour
    audio: bool = False  # it holds recordings
    media: tuple[str, ...] = ()  # the answer may be other than text or pictures: "audio"
    context: tuple[tuple[str, str], ...] = ()  # service_tier, speed


class Rates(Struct, frozen=True, gc=False):
    """Pico-USD: of a request by itself, of a token of input, of output, of a use of a hosted tool."""

    fixed: int
    input: int
    output: int
    use: int


class WorstRates:
    """One per price table; remembers a bounded number of rates."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self._known: dict[tuple[object, ...], Rates | None] = {}

    def of(self, provider: str, models: tuple[str, ...], tokens: int, at: float, features: Features) -> Rates | None:
        """The dearest of all `models` for a request of up to `tokens`; None where one of them has no price."""
        shift = max(0, tokens.bit_length() - 4)
        sixteenth = tokens >> shift
        key = (provider, models, sixteenth, shift, int(at) // HALF_HOUR, features)
        try:
            return self._known[key]
        except KeyError:
            pass
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        found = [self._rates(provider, model, (sixteenth + 1) << shift, at, features) for model in models]
        self._known[key] = worst = _dearest(found)
        return worst

    def search(self, provider: str, model: str, at: float) -> int | None:
        """Of a search for which documents are ranked."""
        return self._prices.price(provider, model, Usage(detail={"rerank_searches": 1}), at).total

    def _rates(self, provider: str, model: str, tokens: int, at: float, features: Features) -> Rates | None:
        since = at - at % HALF_HOUR
        contexts: list[Mapping[str, str]] = [{}, dict(features.context)] if features.context else [{}]
        times = (since, since + HALF_HOUR - 1, at)
        price = self._prices.price
        return _dearest(
            [
                _rates(lambda usage, at=time, c=context: price(provider, model, usage, at, c).total, tokens, features)
                for time in times
                for context in contexts
            ]
        )


def _rates(cost: Cost, tokens: int, features: Features) -> Rates | None:
    fixed = cost(Usage()) or 0
    taken = [cost(usage) for usage in _inputs(tokens, features)]
    whole = taken[0]
    made = [cost(usage) for usage in _outputs(tokens, features)]
    if whole is None or made[0] is None:
        return None
    uses = [cost(Usage(detail={key: 1})) or 0 for key in USES]
    return Rates(
        fixed,
        max(_each((c or 0) - fixed, tokens) for c in taken),
        max(_each((c or 0) - whole, MANY) for c in made),
        max(0, *(use - fixed for use in uses)),
    )


def _inputs(n: int, features: Features) -> Iterable[Usage]:
    yield Usage(n)
    yield Usage(n, cache_write_tokens=n)
    yield Usage(n, cache_write_tokens=n, detail={"cache_write_5m_tokens": n})
    yield Usage(n, detail={"input_image_tokens": n})
    if features.hour:
        yield Usage(n, cache_write_tokens=n, detail={"cache_write_1h_tokens": n})
    if features.audio:
        yield Usage(n, detail={"input_audio_tokens": n})


def _outputs(n: int, features: Features) -> Iterable[Usage]:
    yield Usage(n, MANY)
    yield Usage(n, MANY, reasoning_tokens=MANY)
    yield Usage(n, MANY, detail={"output_image_tokens": MANY})  # a rate of models that draw without being asked to
    for medium in features.media:
        yield Usage(n, MANY, detail={f"output_{medium}_tokens": MANY})


def _each(cost: int, count: int) -> int:
    return -(-cost // count)


def _dearest(found: Sequence[Rates | None]) -> Rates | None:
    known = [rates for rates in found if rates is not None]
    if len(known) < len(found) or not known:
        return None
    return Rates(*(max(getattr(rates, name) for rates in known) for name in Rates.__struct_fields__))
