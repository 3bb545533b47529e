"""Compiles the data of the installed genai-prices into a catalogue that loads in a millisecond.

Run as `python -m gateway.prices.compile PATH`: genai-prices stays out of every long-lived process. The output is
deterministic: the same data gives the same bytes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, time
from importlib.metadata import version
from pathlib import Path

import msgspec
from genai_prices import types as gp
from genai_prices.data import providers as DATA
from genai_prices.data_units import unit_data as UNITS

from gateway.policy.price_rules import (
    FORMAT,
    Catalogue,
    Listing,
    Match,
    Model,
    Period,
    Provider,
    Rate,
    Rates,
    Unit,
    Variant,
    When,
)

_USAGE_KEYS = {unit.get("price_key", key): key for key, unit in UNITS.items()}

# Groq bills at least ten seconds per audio request (https://groq.com/pricing); in genai-prices this is code, not data.
_LEAST_SECONDS = 10.0
_LEAST = {
    ("groq", model): {"audio_seconds": _LEAST_SECONDS, "input_audio_seconds": _LEAST_SECONDS}
    for model in ("whisper-large-v3", "whisper-large-v3-turbo")
}


def compile_catalogue() -> bytes:
    """The catalogue of the installed genai-prices, as msgpack."""
    catalogue = Catalogue(
        format=FORMAT,
        source=f"genai-prices-{version('genai-prices')}",
        units={key: Unit(u["per"], u.get("price_key", key), u["dimensions"]) for key, u in UNITS.items()},
        providers=[_provider(provider) for provider in DATA],
    )
    return msgspec.msgpack.encode(catalogue)


def _provider(provider: gp.Provider) -> Provider:
    listings = [
        Listing(model.id, _match(model.match), _packed(_model(provider.id, model))) for model in provider.models
    ]
    return Provider(
        id=provider.id,
        name=provider.name,
        api_pattern=provider.api_pattern,
        model_match=_match(provider.model_match) if provider.model_match else None,
        provider_match=_match(provider.provider_match) if provider.provider_match else None,
        fallback=provider.fallback_model_providers or [],
        models=_packed(listings),
    )


def _packed(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(value))


def _model(provider: str, model: gp.ModelInfo) -> Model:
    prices = model.prices
    if isinstance(prices, gp.ModelPrice):
        periods = [Period(When(), _rates(prices))]
    else:
        periods = [Period(_when(price.constraint), _rates(price.prices)) for price in prices]
    return Model(
        name=model.name or model.id,
        periods=periods,
        variants=[Variant(v.when, _when(v.constraint), _rates(v.prices)) for v in model.price_variants or ()],
        least=_LEAST.get((provider, model.id), {}),
    )


def _rates(prices: gp.ModelPrice) -> Rates:
    return {_USAGE_KEYS[key]: _rate(value) for key, value in vars(prices).items() if value is not None}


def _rate(value: object) -> Rate:
    if isinstance(value, gp.TieredPrices):
        return str(value.base), [(tier.start, str(tier.price)) for tier in value.tiers]
    return str(value)


def _when(constraint: gp.StartDateConstraint | gp.TimeOfDateConstraint | None) -> When:
    if constraint is None:
        return When()
    if isinstance(constraint, gp.StartDateConstraint):
        return When(since=datetime.combine(constraint.start_date, time(), UTC).timestamp())
    return When(daily=(_seconds(constraint.start_time), _seconds(constraint.end_time)))


def _seconds(moment: time) -> float:
    """Seconds since midnight UTC; a time without a zone is in UTC."""
    at = datetime.combine(datetime(1970, 1, 2, tzinfo=UTC), moment, moment.tzinfo or UTC)
    return at.timestamp() % 86_400


def _match(clause: object) -> Match:
    """A clause as plain data, in lower case as the ids it is compared with; patterns stay as they are."""
    match clause:
        case gp.ClauseEquals(equals=text):
            return ("=", text.lower())
        case gp.ClauseStartsWith(starts_with=text):
            return ("^", text.lower())
        case gp.ClauseEndsWith(ends_with=text):
            return ("$", text.lower())
        case gp.ClauseContains(contains=text):
            return ("~", text.lower())
        case gp.ClauseRegex(regex=pattern):
            return ("re", pattern)
        case gp.ClauseOr(or_=clauses):
            return ("|", [_match(c) for c in clauses])
        case gp.ClauseAnd(and_=clauses):
            return ("&", [_match(c) for c in clauses])
    raise TypeError(f"a clause this compiler does not know: {type(clause).__name__}")


def main(arguments: Iterable[str]) -> None:
    """Write the catalogue to the path given, atomically."""
    (target,) = map(Path, arguments)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    part.write_bytes(compile_catalogue())
    part.replace(target)


if __name__ == "__main__":
    main(sys.argv[1:])
