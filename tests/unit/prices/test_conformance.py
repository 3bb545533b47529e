"""The compiled prices against `genai_prices.calc_price`, over the whole catalogue.

Every model of every provider is priced at the edges of each of its dated and daily prices, under each of its variants,
around each of its tiers, for usage that touches every unit it prices.
"""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import types as gp
from genai_prices.data import providers as PROVIDERS
from genai_prices.data_snapshot import DataSnapshot
from genai_prices.units import _get_registry
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.call import PICO_USD, Money, Usage
from gateway.policy.pricing import PriceTable
from gateway.prices.compile import compile_catalogue

Counts = dict[str, int | float]

UNITS = _get_registry().units
BY_PRICE_KEY = {unit.price_key: unit for unit in UNITS.values()}
CORE = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "output_reasoning_tokens": "reasoning_tokens",
}
TABLE = PriceTable(compile_catalogue())
SNAPSHOT = DataSnapshot(providers=PROVIDERS, from_auto_update=False)
MODELS = [(provider, model) for provider in PROVIDERS for model in provider.models]
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def price_sets(model: gp.ModelInfo) -> list[gp.ModelPrice]:
    plain = [model.prices] if isinstance(model.prices, gp.ModelPrice) else [c.prices for c in model.prices]
    return plain + [variant.prices for variant in model.price_variants or ()]


def priced_units(model: gp.ModelInfo) -> list[str]:
    keys = {key for prices in price_sets(model) for key, value in vars(prices).items() if value is not None}
    return sorted(BY_PRICE_KEY[key].usage_key for key in keys)


def tier_starts(model: gp.ModelInfo) -> list[int]:
    tiered = (v for prices in price_sets(model) for v in vars(prices).values() if isinstance(v, gp.TieredPrices))
    return sorted({tier.start for value in tiered for tier in value.tiers})


def instants(model: gp.ModelInfo) -> list[datetime]:
    """Both sides of every edge of a constraint, and now."""
    rules = [] if isinstance(model.prices, gp.ModelPrice) else list(model.prices)
    found = {NOW}
    for rule in [*rules, *(model.price_variants or ())]:
        constraint = rule.constraint
        if isinstance(constraint, gp.StartDateConstraint):
            edges = [datetime.combine(constraint.start_date, datetime.min.time(), UTC)]
        elif constraint is not None:
            times = (constraint.start_time, constraint.end_time)
            edges = [datetime.combine(NOW.date(), t, t.tzinfo or UTC).astimezone(UTC) for t in times]
        else:
            continue
        found |= {edge + step for edge in edges for step in (-timedelta(seconds=1), timedelta(0), timedelta(seconds=1))}
    return sorted(found)


def contexts(model: gp.ModelInfo) -> list[dict[str, str] | None]:
    whens = [variant.when for variant in model.price_variants or ()]
    every: dict[str, str] = {}
    for when in whens:
        every |= when
    unique = {tuple(sorted(when.items())): when for when in whens}
    return [None, {"service_tier": "no such tier"}, *unique.values(), *([every] if every else [])]


def usage_of(leaves: Counts) -> Counts:
    """Consistent usage: each whole is the sum of what is counted under it."""
    keys = set(leaves) | {ancestor for key in leaves for ancestor in _get_registry().ancestor_usage_keys(key)}
    return {
        whole: sum(n for key, n in leaves.items() if UNITS[whole].dimensions.items() <= UNITS[key].dimensions.items())
        for whole in keys
    }


def both(
    provider: gp.Provider, model: gp.ModelInfo, counts: Counts, at: datetime, context: dict[str, str] | None
) -> tuple[gp.PriceCalculation, Money]:
    counts = {key: n for key, n in counts.items() if key != "requests"}
    theirs = model.calc_price(TheirUsage(**counts), provider, genai_request_timestamp=at, price_context=context)
    core = {ours: counts.get(key, 0) for key, ours in CORE.items()}
    usage = Usage(**core, detail={key: n for key, n in counts.items() if key not in CORE})
    return theirs, TABLE.price(provider.id, NAMES[id(model)], usage, at.timestamp(), context)


def assert_close(pico: int, usd: Decimal, what: object) -> None:
    assert abs(Decimal(pico) / PICO_USD - usd) <= max(usd * Decimal("1e-9"), Decimal("1e-12")), what


def assert_same(theirs: gp.PriceCalculation, ours: Money, counts: Counts, what: object) -> None:
    what = (what, counts, ours, theirs)
    if ours.total is None:  # they say 0 where a model has no price for anything that was used; we say unknown
        assert ours.status == "no_price", what
        assert theirs.total_price == 0, what
        assert any(counts.values()), what
        return
    assert_close(ours.total, theirs.total_price, what)
    part = ours.components.get
    assert_close(part("output", 0) + part("reasoning", 0), theirs.output_price, what)
    if "audio_seconds" not in counts:  # has no direction in their sums
        assert_close(part("input", 0) + part("cache_read", 0) + part("cache_write", 0), theirs.input_price, what)
    assert sum(ours.components.values()) == ours.total, what
    assert min(ours.components.values()) >= 0, what
    assert ours.status == "priced" or (ours.status == "free" and ours.total == 0), what


def names_in(clause: object) -> list[str]:
    for attribute in ("or_", "and_"):
        if clauses := getattr(clause, attribute, None):
            return [name for inner in clauses for name in names_in(inner)]
    texts = (getattr(clause, a, None) for a in ("equals", "starts_with", "ends_with", "contains"))
    return [text for text in texts if text]


def name_of(provider: gp.Provider, model: gp.ModelInfo) -> str | None:
    """A name that means this entry: its id, or a text of its clause, unless an entry before it catches them all."""
    return next((n for n in (model.id, *names_in(model.match)) if provider.find_model(n) is model), None)


NAMES = {id(model): name for provider, model in MODELS if (name := name_of(provider, model))}
PRICED = [(provider, model) for provider, model in MODELS if id(model) in NAMES]


def test_nearly_every_entry_can_be_reached():
    assert len(MODELS) > 2000
    assert len(PRICED) > 0.99 * len(MODELS)


def test_every_model_regime_variant_and_tier_costs_the_same():
    rng = random.Random(7)
    seen: Counter[str] = Counter()
    for provider, model in PRICED:
        units = [key for key in priced_units(model) if key != "requests"] or ["input_tokens", "output_tokens"]
        sizes = [1000, *(start + step for start in tier_starts(model) for step in (0, 1))]
        for at in instants(model):
            for context in contexts(model):
                for size in sizes:
                    leaves: Counts = {key: rng.randrange(0, 100) for key in units}
                    counts = usage_of(leaves)
                    if "input_tokens" in counts:  # exactly at, or just above, the start of the tier
                        counts["input_tokens"] = max(size, sum(n for k, n in leaves.items() if _is_input(k)))
                    what = (provider.id, model.id, at, context)
                    assert_same(*both(provider, model, counts, at, context), counts, what)
                    seen["comparisons"] += 1
        seen["models"] += 1
        seen["variants"] += len(model.price_variants or ())
    assert seen["comparisons"] > 8000
    assert seen["variants"] > 200


def _is_input(key: str) -> bool:
    dimensions = UNITS[key].dimensions
    return dimensions["family"] == "tokens" and dimensions.get("direction") == "input"


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow])
@given(data=st.data())
def test_any_usage_at_any_time_costs_the_same(data: st.DataObject):
    provider, model = data.draw(st.sampled_from(PRICED))
    units = sorted({*priced_units(model), "input_tokens", "output_tokens", "cache_read_tokens"} - {"requests"})
    count = st.one_of(st.integers(0, 3), st.integers(0, 2_000_000))
    leaves: Counts = {
        key: data.draw(count.map(lambda n: n / 8) if UNITS[key].dimensions["family"] == "durations" else count)
        for key in units
    }
    counts = usage_of(leaves)
    at = data.draw(st.one_of(st.sampled_from(instants(model)), st.datetimes(
        datetime(2023, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))))  # fmt: skip
    context = data.draw(st.sampled_from(contexts(model)))
    assert_same(*both(provider, model, counts, at, context), counts, (provider.id, model.id, at, context))


@pytest.mark.parametrize("stated", [True, False], ids=["provider stated", "provider unknown"])
def test_every_name_of_every_model_means_the_same_entry(stated: bool):
    checked = 0
    for provider, model in MODELS:
        for name in {model.id, model.id.upper(), f"{model.id}-20251211", *names_in(model.match)}:
            try:
                owner, found = SNAPSHOT.find_provider_model(name, None, provider.id if stated else None, None)
            except LookupError:
                continue
            described = TABLE.describe(provider.id if stated else "", name)
            assert (described["provider"], described["matched"]) == (owner.id, found.id), name
            checked += 1
    assert checked > (6000 if stated else 1500)
