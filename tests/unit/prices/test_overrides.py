from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.call import Usage
from gateway.config.schema import Price, Prices
from gateway.policy.pricing import PriceTable
from gateway.prices.compile import compile_catalogue
from gateway.prices.load import load
from gateway.prices.overrides import PER, from_config, from_litellm

M = 10**6
AT = 1_795_000_000.0
CATALOGUE = compile_catalogue()


def configured(**models: Price) -> PriceTable:
    return load(CATALOGUE, Prices(models=models))


def litellm(tmp_path: Path, entries: dict[str, Any]) -> PriceTable:
    path = tmp_path / "model_prices.json"
    path.write_bytes(msgspec.json.encode(entries))
    return load(CATALOGUE, Prices(litellm_file=str(path)))


def test_rates_are_for_the_same_number_of_units_as_in_the_catalogue():
    units = PriceTable(CATALOGUE)._units
    assert {key: units[key].per for key in PER} == PER


def test_every_setting_of_a_price_counts():
    price = Price(
        input=1, output=2, cache_read=0.1, cache_write=1.25, cache_write_1h=2, reasoning=3, input_audio=4,
        output_audio=5, requests=6, web_searches=7,
    )  # fmt: skip
    usage = Usage(
        100, 100, 10, 20, 30,
        {"cache_write_1h_tokens": 5, "input_audio_tokens": 7, "output_audio_tokens": 9, "web_searches": 2},
    )  # fmt: skip
    money = configured(mine=price).price("local", "mine", usage, AT)
    assert money.components == {
        "input": (100 - 10 - 20 - 7) * M + 7 * 4 * M,
        "cache_read": 10 * 100_000,
        "cache_write": 15 * 1_250_000 + 5 * 2 * M,
        "output": (100 - 30 - 9) * 2 * M + 9 * 5 * M,
        "reasoning": 30 * 3 * M,
        "tools": 6 * 10**9 + 2 * 7 * 10**9,
    }


def test_unset_components_follow_input_and_output():
    table = configured(**{"gpt-4o": Price(input=1, output=2)})
    assert table.price("openai", "gpt-4o", Usage(100, 10, 50, 0, 5), AT).total == 100 * M + 10 * 2 * M


def test_a_provider_before_the_model_limits_the_override_to_it():
    table = configured(**{"openai/gpt-4o": Price(input=1, output=1)})
    assert table.price("openai", "gpt-4o", Usage(1), AT).total == M
    assert table.price("openai", "gpt-4o-2024-08-06", Usage(1), AT).total == M
    assert table.price("azure", "gpt-4o", Usage(1), AT).total == 2_500_000
    assert table.price("openrouter", "openai/gpt-4o", Usage(1), AT).total == M  # that is its very name there


def test_zero_is_free_and_an_empty_price_says_nothing():
    table = configured(**{"gpt-4o": Price(input=0, output=0), "o3": Price(), "unheard-of": Price()})
    assert table.price("openai", "gpt-4o", Usage(5, 5), AT).status == "free"
    assert table.price("openai", "o3", Usage(5), AT).status == "priced"
    assert table.price("openai", "unheard-of", Usage(5), AT).status == "no_price"


def test_the_version_follows_the_content():
    plain = load(CATALOGUE).version
    one, two = (configured(m=Price(input=n, output=1)).version for n in (1, 2))
    assert plain.startswith("genai-prices-")
    assert one.startswith(f"{plain}+overrides-")
    assert len(one) == len(plain) + len("+overrides-") + 8
    assert one != two
    assert load(CATALOGUE, Prices()).version == plain


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0])
def test_what_is_no_price_is_named(value: float):
    with pytest.raises(ValueError, match=r"prices\.models\.m\.input"):
        from_config({"m": Price(input=value)})


FULL = {
    "sample_spec": {"input_cost_per_token": 0.0, "litellm_provider": "one of https://..."},
    "claude-x": {
        "litellm_provider": "anthropic",
        "input_cost_per_token": 3e-06,
        "output_cost_per_token": 1.5e-05,
        "input_cost_per_token_above_200k_tokens": 6e-06,
        "output_cost_per_token_above_200k_tokens": 2.25e-05,
        "cache_creation_input_token_cost": 3.75e-06,
        "cache_creation_input_token_cost_above_1hr": 6e-06,
        "cache_creation_input_token_cost_above_1hr_above_200k_tokens": 1.2e-05,
        "cache_creation_input_token_cost_above_200k_tokens": 7.5e-06,
        "cache_read_input_token_cost": 3e-07,
        "cache_read_input_token_cost_above_200k_tokens": 6e-07,
        "input_cost_per_token_batches": 1.5e-06,
        "output_cost_per_token_batches": 7.5e-06,
        "search_context_cost_per_query": {
            "search_context_size_low": 0.01,
            "search_context_size_medium": 0.02,
            "search_context_size_high": 0.03,
        },
        "supports_vision": True,
        "max_tokens": 8192,
    },
    "gpt-x": {
        "litellm_provider": "openai",
        "input_cost_per_token": 1e-06,
        "output_cost_per_token": 4e-06,
        "input_cost_per_token_flex": 5e-07,
        "output_cost_per_token_flex": 2e-06,
        "input_cost_per_token_priority": 2e-06,
        "input_cost_per_token_above_272k_tokens": 2e-06,
        "input_cost_per_token_above_272k_tokens_priority": 4e-06,
        "input_cost_per_audio_token": 1e-05,
        "output_cost_per_audio_token": 2e-05,
        "output_cost_per_reasoning_token": 5e-06,
        "file_search_cost_per_1k_calls": 2.5,
    },
    "azure/eu/gpt-x": {"litellm_provider": "azure", "input_cost_per_token": 9e-06, "output_cost_per_token": 0},
    "whisper-x": {"litellm_provider": "openai", "mode": "audio_transcription", "input_cost_per_second": 0.0001},
    "picture-x": {"litellm_provider": "openai", "output_cost_per_image": 0.04},
}


@pytest.mark.parametrize(
    ("provider", "model", "usage", "context", "components"),
    [
        ("anthropic", "claude-x", Usage(1000, 10, 300, 200, 0, {"cache_write_1h_tokens": 50}), None,
         {"input": 500 * 3 * M, "cache_read": 300 * 300_000, "cache_write": 150 * 3_750_000 + 50 * 6 * M,
          "output": 150 * M}),
        ("anthropic", "claude-x", Usage(200_001, 10, 300, 200, 0, {"cache_write_1h_tokens": 50}), None,
         {"input": 199_501 * 6 * M, "cache_read": 300 * 600_000, "cache_write": 150 * 7_500_000 + 50 * 12 * M,
          "output": 225 * M}),
        ("anthropic", "claude-x", Usage(200_000, 10), None, {"input": 600_000 * M, "output": 150 * M}),
        ("anthropic", "claude-x", Usage(10, 10), {"processing": "batch"}, {"input": 15 * M, "output": 75 * M}),
        ("anthropic", "claude-x", Usage(1, 1, detail={"web_searches": 1}), None,
         {"input": 3 * M, "output": 15 * M, "tools": 20 * 10**9}),
        ("anthropic", "claude-x", Usage(1, 1, detail={"web_searches": 1}), {"search_context_size": "high"},
         {"input": 3 * M, "output": 15 * M, "tools": 30 * 10**9}),
        ("openai", "gpt-x-2026-01-31", Usage(10, 10), {"service_tier": "flex"}, {"input": 5 * M, "output": 20 * M}),
        ("openai", "gpt-x", Usage(10, 10), {"service_tier": "priority"}, {"input": 20 * M, "output": 40 * M}),
        ("openai", "gpt-x", Usage(272_001), None, {"input": 272_001 * 2 * M, "output": 0}),
        ("openai", "gpt-x", Usage(272_001), {"service_tier": "priority"}, {"input": 272_001 * 4 * M, "output": 0}),
        ("openai", "gpt-x", Usage(10, 10, 0, 0, 2, {"input_audio_tokens": 4, "output_audio_tokens": 3}), None,
         {"input": 46 * M, "output": 5 * 4 * M + 60 * M, "reasoning": 10 * M}),
        ("openai", "gpt-x", Usage(1, detail={"storage_searches": 2}), None,
         {"input": M, "output": 0, "tools": 5 * 10**9}),
        ("azure", "eu/gpt-x", Usage(10, 10), None, {"input": 90 * M, "output": 0}),
        ("", "azure/eu/gpt-x", Usage(10, 10), None, {"input": 90 * M, "output": 0}),
        ("", "gpt-x", Usage(10), None, {"input": 10 * M, "output": 0}),
        ("openai", "whisper-x", Usage(detail={"audio_seconds": 2.5}), None, {"input": 25 * 10**7, "output": 0}),
    ],
)  # fmt: skip
def test_the_keys_of_litellm(
    tmp_path: Path, provider: str, model: str, usage: Usage, context: dict[str, str] | None, components: dict[str, int]
):
    money = litellm(tmp_path, FULL).price(provider, model, usage, AT, context)
    assert money.components == components
    assert money.total == sum(components.values())


def test_a_litellm_entry_counts_for_its_provider_only(tmp_path: Path):
    table = litellm(tmp_path, FULL)
    assert table.price("groq", "gpt-x", Usage(10), AT).status == "no_price"
    assert not table.knows("openai", "picture-x")
    assert not table.knows("", "sample_spec")


def test_the_configuration_wins_over_the_file(tmp_path: Path):
    path = tmp_path / "prices.json"
    path.write_bytes(msgspec.json.encode(FULL))
    table = load(CATALOGUE, Prices(models={"gpt-x": Price(input=42, output=1)}, litellm_file=str(path)))
    assert table.price("openai", "gpt-x", Usage(1), AT).total == 42 * M
    assert table.describe("openai", "gpt-x")["source"] == "prices.models"
    assert table.describe("anthropic", "claude-x")["source"] == "prices.json"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"[]", "f.json"),
        (b"{", "f.json"),
        (b'{"m": 3}', "f.json"),
        (b'{"m": {"input_cost_per_token": -1}}', "m.input_cost_per_token"),
        (b'{"m": {"input_cost_per_token": true}}', "m.input_cost_per_token"),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_name(text: bytes, named: str):
    with pytest.raises(ValueError, match=named):
        from_litellm(text, "f.json")


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        load(CATALOGUE, Prices(litellm_file=str(tmp_path / "none.json")))
