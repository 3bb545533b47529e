from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Money, Usage
from gateway.policy.price_rules import FORMAT, Catalogue, Listing, Model, Period, Provider, Unit, Variant, When
from gateway.policy.pricing import Override, PriceTable

M = 10**6
JAN, JUNE = (datetime(2026, month, 1, tzinfo=UTC).timestamp() for month in (1, 6))
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC).timestamp()


def tokens(direction: str, name: str, **more: str) -> Unit:
    return Unit(M, name, {"family": "tokens", "direction": direction, **more})


UNITS = {
    "input_tokens": tokens("input", "input_mtok"),
    "output_tokens": tokens("output", "output_mtok"),
    "cache_read_tokens": tokens("input", "cache_read_mtok", token_type="cache_read"),
    "cache_write_tokens": tokens("input", "cache_write_mtok", token_type="cache_write"),
    "cache_write_1h_tokens": tokens("input", "cache_write_1h_mtok", token_type="cache_write", cache_ttl="1h"),
    "input_audio_tokens": tokens("input", "input_audio_mtok", modality="audio"),
    "output_reasoning_tokens": tokens("output", "output_reasoning_mtok", token_type="reasoning"),
    "audio_seconds": Unit(3600, "audio_hours", {"family": "durations", "modality": "audio"}),
    "web_searches": Unit(1000, "web_searches_kcount", {"family": "tool_calls", "tool_type": "web_search"}),
    "requests": Unit(1000, "requests_kcount", {"family": "requests"}),
}


def plain(**rates: Any) -> Model:
    return Model(periods=[Period(When(), rates)])


def packed(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(value))


def provider(id: str, models: dict[str, Model], match: str = "", fallback: tuple[str, ...] = ()) -> Provider:
    listings = [Listing(name, ("=", name), packed(model)) for name, model in models.items()]
    clause = ("~", match) if match else None
    return Provider(id, id.title(), rf"https://api\.{id}\.com", clause, None, list(fallback), packed(listings))


CACHED = {"input_tokens": "3", "output_tokens": "15", "cache_read_tokens": "0.3", "cache_write_tokens": "3.75"}
CATALOGUE = Catalogue(
    FORMAT,
    "test-1",
    UNITS,
    [
        provider(
            "acme",
            {
                "plain": plain(input_tokens="2", output_tokens="10"),
                "cached": plain(**CACHED, cache_write_1h_tokens="6", web_searches="10"),
                "thinker": plain(input_tokens="1", output_tokens="2", output_reasoning_tokens="3"),
                "search": plain(input_tokens="1", output_tokens="1", requests="5"),
                "gratis": plain(),
                "zero": plain(input_tokens="0", output_tokens="0"),
                "zero-in": plain(input_tokens="0", output_tokens="1"),
                "whisper": plain(audio_seconds="0.36"),
                "least": Model(periods=[Period(When(), {"audio_seconds": "0.36"})], least={"audio_seconds": 10.0}),
                "tiered": plain(input_tokens=("1", [(1000, "2"), (5000, "4")]), output_tokens=("10", [(1000, "20")])),
                "thirds": plain(audio_seconds="1", output_tokens="0.0000001", input_tokens="0.3"),
                "dated": Model(
                    periods=[
                        Period(When(), {"input_tokens": "9"}),
                        Period(When(since=JAN), {"input_tokens": "5"}),
                        Period(When(since=JUNE), {"input_tokens": "1"}),
                    ]
                ),
                "nightly": Model(
                    periods=[
                        Period(When(), {"input_tokens": "4"}),
                        Period(When(daily=(22 * 3600.0, 6 * 3600.0)), {"input_tokens": "1"}),
                    ]
                ),
                "served": Model(
                    periods=[Period(When(), {"input_tokens": "2", "output_tokens": "8"})],
                    variants=[
                        Variant({"service_tier": "flex"}, When(), {"input_tokens": "1"}),
                        Variant(
                            {"processing": "batch"}, When(since=JUNE), {"input_tokens": "0.5", "output_tokens": "4"}
                        ),
                    ],
                ),
            },
            match="acme",
        ),
        provider("resale", {"own": plain(input_tokens="7")}, fallback=("acme",)),
    ],
)
DATA = msgspec.msgpack.encode(CATALOGUE)
TABLE = PriceTable(DATA)


def cost(model: str, usage: Usage, at: float = NOON, context: dict[str, str] | None = None, by: str = "acme") -> Money:
    return TABLE.price(by, model, usage, at, context)


def test_the_models_of_the_catalogue_are_named_with_and_without_what_stands_before_a_slash():
    assert {"plain", "own", "tiered"} <= TABLE.names()
    listed = PriceTable(
        msgspec.msgpack.encode(Catalogue(FORMAT, "t", UNITS, [provider("hub", {"meta/llama": plain(requests="1")})]))
    )
    assert listed.names() == {"meta/llama", "llama"}


def test_a_call_costs_its_tokens_in_whole_pico_usd():
    assert cost("plain", Usage(1000, 100)) == Money(
        3 * 10**9, {"input": 2 * 10**9, "output": 10**9}, "test-1", "priced"
    )


def test_cache_reads_and_writes_are_taken_out_of_the_input():
    money = cost("cached", Usage(1000, 10, 600, 300))
    assert money.components == {
        "input": 100 * 3 * M,
        "cache_read": 600 * 300_000,
        "cache_write": 300 * 3_750_000,
        "output": 10 * 15 * M,
    }


def test_the_part_of_a_cache_write_with_its_own_price_is_priced_apart_and_the_rest_too():
    usage = Usage(1000, 0, 0, 300, 0, {"cache_write_1h_tokens": 100, "cache_write_5m_tokens": 150})
    assert cost("cached", usage).components["cache_write"] == 100 * 6 * M + 200 * 3_750_000


def test_a_kind_without_a_price_of_its_own_costs_as_its_whole_and_is_shown_apart():
    money = cost("plain", Usage(1000, 100, 400, 0, 30))
    assert money.components == {
        "input": 600 * 2 * M,
        "cache_read": 400 * 2 * M,
        "output": 70 * 10 * M,
        "reasoning": 30 * 10 * M,
    }
    assert money.total == cost("plain", Usage(1000, 100)).total


def test_reasoning_with_a_price_of_its_own():
    assert cost("thinker", Usage(0, 100, 0, 0, 30)).components == {"input": 0, "output": 140 * M, "reasoning": 90 * M}


def test_server_tools_and_requests_are_tools():
    usage = Usage(0, 0, detail={"web_searches": 3})
    assert cost("cached", usage) == Money(
        30 * 10**9, {"input": 0, "output": 0, "tools": 30 * 10**9}, "test-1", "priced"
    )
    assert cost("search", Usage(1, 1)).components["tools"] == 5 * 10**9


def test_more_parts_than_whole_never_makes_a_credit():
    money = cost("cached", Usage(100, 0, 600, 300))
    assert money.components == {"input": 0, "output": 0, "cache_read": 600 * 300_000, "cache_write": 300 * 3_750_000}
    assert cost("plain", Usage(100, 10, 600, 0, 50)).total == cost("plain", Usage(100, 10)).total


@pytest.mark.parametrize("count", [-1, math.nan, math.inf, -math.inf, 10**16])
@pytest.mark.parametrize("where", ["input_tokens", "output_tokens", "cache_read_tokens", "web_searches"])
def test_what_is_no_count_has_no_cost(where: str, count: Any):
    usage = Usage(detail={where: count}) if where == "web_searches" else Usage(**{where: count})
    assert cost("cached", usage) == Money(None, {}, "test-1", "no_usage")


def test_a_count_with_a_fraction_is_priced_exactly_whatever_field_it_is_in():
    assert cost("plain", Usage(1.5)).total == 3 * M  # type: ignore[arg-type]
    assert cost("whisper", Usage(detail={"audio_seconds": 0.1})).total == 10 * M


def test_an_unknown_model_is_never_zero():
    for model in ("nothing", "", "x" * 10_000):
        assert cost(model, Usage(5, 5)) == Money(None, {}, "test-1", "no_price")
        assert not TABLE.knows("acme", model)


def test_usage_that_the_model_has_no_price_for_is_unknown():
    assert cost("whisper", Usage(100, 20)).total is None
    assert cost("whisper", Usage(100, 20)).status == "no_price"


def test_an_explicit_zero_is_free():
    for model in ("gratis", "zero"):
        money = cost(model, Usage(5, 5, 3))
        assert (money.total, money.status) == (0, "free")
        assert TABLE.knows("acme", model)
    assert cost("zero-in", Usage(5, 0)).status == "free"
    assert cost("zero-in", Usage(5, 1)).status == "priced"


def test_nothing_used_costs_nothing_and_is_not_free():
    assert cost("plain", Usage()) == Money(0, {"input": 0, "output": 0}, "test-1", "priced")


def test_a_tier_counts_for_the_whole_call_once_it_is_exceeded():
    assert cost("tiered", Usage(1000, 1)).components == {"input": 1000 * M, "output": 10 * M}
    assert cost("tiered", Usage(1001, 1)).components == {"input": 2002 * M, "output": 20 * M}
    assert cost("tiered", Usage(5001, 1)).components == {"input": 5001 * 4 * M, "output": 20 * M}


@pytest.mark.parametrize(
    ("at", "rate"), [(0.0, 9), (JAN - 1, 9), (JAN, 5), (JUNE - 0.001, 5), (JUNE, 1), (JUNE + 10**9, 1)]
)
def test_the_last_dated_price_in_force_counts(at: float, rate: int):
    assert cost("dated", Usage(10), at).total == 10 * rate * M


@pytest.mark.parametrize(("hour", "rate"), [(0, 1), (5.999, 1), (6, 4), (12, 4), (21.999, 4), (22, 1), (23.9, 1)])
def test_a_daily_price_may_span_midnight(hour: float, rate: int):
    assert cost("nightly", Usage(10), JUNE + hour * 3600).total == 10 * rate * M


@given(st.lists(st.floats(JAN - 10**6, JUNE + 10**6), min_size=2, max_size=8))
def test_what_is_remembered_of_one_instant_never_leaks_into_another(instants: list[float]):
    for model in ("dated", "nightly", "served"):
        for at in instants:
            for context in (None, {"processing": "batch"}):
                assert cost(model, Usage(10), at, context) == PriceTable(DATA).price(
                    "acme", model, Usage(10), at, context
                )


def test_a_variant_replaces_the_rates_it_names():
    assert cost("served", Usage(10, 1), NOON, {"service_tier": "default"}).total == 28 * M
    assert cost("served", Usage(10, 1), NOON, {"service_tier": "flex"}).total == 18 * M
    assert cost("served", Usage(10, 1), NOON, {"service_tier": "flex", "processing": "batch"}).total == 14 * M
    assert cost("served", Usage(10, 1), NOON, {"service_tier": "batch"}).total == 9 * M
    assert cost("served", Usage(10, 1), JUNE - 1, {"processing": "batch"}).total == 28 * M
    assert cost("served", Usage(10, 1)).total == 28 * M


def test_contexts_from_upstreams_do_not_pile_up():
    table = PriceTable(DATA)
    for n in range(1000):
        table.price("acme", "served", Usage(1), NOON, {"service_tier": f"tier-{n}", "other": str(n)})
    entry = table._entry("acme", "served")
    assert entry is not None
    assert len(entry.plans) <= 64


def test_what_is_remembered_is_bounded_and_what_was_asked_for_lately_stays():
    table = PriceTable(DATA, remembered=100)
    kept = table._entry("acme", "plain")
    for n in range(5000):
        table.knows("acme", f"unknown-{n}")
        assert table.knows("acme", "plain")
        if n % 20 == 0:
            assert table._entry("acme", "plain") is kept
    assert len(table._recent) + len(table._older) <= 100


def test_the_least_that_is_billed():
    assert cost("least", Usage(detail={"audio_seconds": 3})).total == 10 * 10**8
    assert cost("least", Usage(detail={"audio_seconds": 30})).total == 30 * 10**8
    assert cost("least", Usage(detail={"audio_seconds": 0})).total == 0


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 10**5))
def test_parts_sum_to_the_total_and_the_total_is_exact_to_half_a_pico(fresh: int, output: int, seconds: float):
    money = cost("thirds", Usage(fresh, output, detail={"audio_seconds": seconds}))
    assert money.total is not None
    assert sum(money.components.values()) == money.total
    exact = fresh * 300_000 + output * 0.1 + seconds * 10**12 / 3600
    assert abs(money.total - exact) <= 0.51 + exact * 1e-12


@given(st.tuples(*[st.integers(0, 10**4)] * 5), st.integers(0, 3), st.integers(1, 10**4))
def test_more_usage_never_costs_less(counts: tuple[int, ...], which: int, more: int):
    fresh, output, read, write, reasoning = counts
    grown = [fresh, output, read, write]
    grown[which] += more
    for model in ("plain", "cached", "thinker", "tiered", "search", "zero-in"):
        costs = [
            cost(model, Usage(f + r + w, o + reasoning, r, w, reasoning)).total
            for f, o, r, w in ((fresh, output, read, write), grown)
        ]
        assert costs[0] <= costs[1]  # type: ignore[operator]


def test_without_a_known_provider_the_model_names_it():
    assert cost("acme/plain", Usage(1), by="").total == 2 * M
    assert cost("acme/plain", Usage(1), by="somewhere").total == 2 * M
    assert cost("plain", Usage(1), by="").status == "no_price"
    assert cost("acme/plain", Usage(1), by="acme").total == 2 * M


def test_a_reseller_sells_the_models_of_another_at_the_standard_price():
    assert cost("plain", Usage(1), by="resale").total == 2 * M
    assert cost("served", Usage(1), NOON, {"service_tier": "flex"}, by="resale").total == 2 * M


PLACES = {"resale": ("127.0.0.1", ""), "acme": ("proxy.example.com", "/v1"), "local": ("localhost", "")}


def test_where_the_url_says_nothing_the_name_of_the_upstream_stands_for_its_provider():
    table = PriceTable(DATA, places=PLACES)
    assert table.provider_of("resale", "127.0.0.1") == "resale"
    assert table.price("resale", "own", Usage(1), NOON).total == 7 * M
    assert table.provider_of("resale", "api.acme.com") == "acme"


def test_a_name_proves_little_so_what_its_list_lacks_goes_by_the_models_name():
    table = PriceTable(DATA, places=PLACES)
    assert table.price("acme", "resale/own", Usage(1), NOON).total == 7 * M
    assert cost("resale/own", Usage(1)).status == "no_price"  # a provider that is known by its URL sells its own models
    known = PriceTable(DATA, places={"acme": ("api.acme.com", "")})
    assert known.price("acme", "resale/own", Usage(1), NOON).status == "no_price"


def test_an_override_may_be_for_one_upstream_or_for_providers_that_are_not_known():
    overrides = [override("llama", "local", input_tokens="3"), Override("", "own", plain(input_tokens="4"), "f.json")]
    table = PriceTable(DATA, overrides, tag="x", places=PLACES)
    assert table.price("local", "llama", Usage(1), NOON).total == 3 * M
    assert table.price("acme", "llama", Usage(1), NOON).status == "no_price"
    assert [table.price(name, "own", Usage(1), NOON).total for name in PLACES] == [4 * M] * 3


def override(model: str, provider: str = "*", **rates: Any) -> Override:
    return Override(provider, model, plain(**rates), "prices.models")


def test_an_override_wins_and_its_version_says_so():
    table = PriceTable(DATA, [override("cached", input_tokens="1", output_tokens="2")], tag="0badcafe")
    assert table.version == "test-1+overrides-0badcafe"
    money = table.price("acme", "cached", Usage(10, 1, 5, detail={"web_searches": 1}), NOON)
    # its cache reads follow its own input; what it does not speak of keeps the base price
    assert money.components == {"input": 5 * M, "cache_read": 5 * M, "output": 2 * M, "tools": 10**10}
    assert money.version == table.version


def test_an_override_of_one_part_leaves_the_rest():
    table = PriceTable(DATA, [override("cached", cache_read_tokens="0")], tag="x")
    assert table.price("acme", "cached", Usage(10, 1, 5), NOON).components == {"input": 15 * M, "output": 15 * M}


def test_an_override_may_be_for_one_provider_or_for_a_model_nobody_lists():
    overrides = [override("plain", "resale", input_tokens="3"), override("Local", input_tokens="1", output_tokens="1")]
    table = PriceTable(DATA, overrides, tag="x")
    assert table.price("resale", "plain", Usage(1), NOON).total == 3 * M
    assert table.price("acme", "plain", Usage(1), NOON).total == 2 * M
    assert table.price("", "local", Usage(1), NOON).total == M
    assert table.price("anything", "LOCAL", Usage(1), NOON).total == M


def test_an_override_counts_for_the_dated_forms_of_its_model():
    table = PriceTable(DATA, [override("plain", input_tokens="5")], tag="x")
    assert table.price("acme", "plain-2026-01-31", Usage(1), NOON).total == 5 * M


def test_the_first_override_of_a_model_counts():
    table = PriceTable(DATA, [override("plain", input_tokens="5"), override("plain", input_tokens="6")], tag="x")
    assert table.price("acme", "plain", Usage(1), NOON).total == 5 * M


def test_an_earlier_source_lies_on_top_of_a_later_one():
    later = Override("acme", "cached", plain(input_tokens="1", output_tokens="2"), "file.json")
    table = PriceTable(DATA, [override("cached", cache_read_tokens="0"), later], tag="x")
    assert table.price("acme", "cached", Usage(10, 1, 5), NOON).components == {"input": 5 * M, "output": 2 * M}
    assert table.describe("acme", "cached")["source"] == "prices.models"


def test_describe_tells_all():
    told = TABLE.describe("acme", "served")
    assert msgspec.json.decode(msgspec.json.encode(told)) == told
    assert told["known"]
    assert told["source"] == told["version"] == "test-1"
    assert told["prices"][0]["rates"]["input_tokens"] == {"per": M, "usd": 2.0}
    assert told["variants"][1]["since"] == "2026-06-01T00:00:00+00:00"
    assert TABLE.describe("acme", "nightly")["prices"][1]["daily_utc"] == ["22:00:00", "6:00:00"]
    tiers = TABLE.describe("acme", "tiered")["prices"][0]["rates"]["output_tokens"]
    assert tiers == {"per": M, "usd": 10.0, "tiers": [{"above_input_tokens": 1000, "usd": 20.0}]}
    assert TABLE.describe("acme", "least")["minimum"] == {"audio_seconds": 10.0}
    assert TABLE.describe("acme", "nothing") == {
        "provider": "acme",
        "model": "nothing",
        "known": False,
        "version": "test-1",
    }


def test_describe_names_the_override():
    table = PriceTable(DATA, [override("plain", input_tokens="5")], tag="x")
    told = table.describe("acme", "plain")
    assert told["source"] == "prices.models"
    assert told["overrides"][0]["prices"][0]["rates"] == {"input_tokens": {"per": M, "usd": 5.0}}


def test_a_catalogue_of_another_format_is_refused():
    other = msgspec.msgpack.encode(msgspec.structs.replace(CATALOGUE, format=FORMAT + 1))
    with pytest.raises(ValueError, match="format"):
        PriceTable(other)
    with pytest.raises(msgspec.DecodeError):
        PriceTable(DATA[:-10])
