"""The operator's own prices: the `prices` section of the configuration, and files in LiteLLM's `model_prices` format.

Both become `policy.pricing.Override`s. The LiteLLM format (https://docs.litellm.ai/docs/proxy/model_cost_map) is a JSON
object of models; a rate is USD for one unit, and the key says of what, under which tier or service:
`input_cost_per_token_above_200k_tokens_priority`. What it prices that no provider's usage counts is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import lru_cache

import msgspec

from gateway.config.schema import Price
from gateway.policy.price_rules import Model, Period, Rates, Variant, When
from gateway.policy.pricing import Override

_MILLION, _THOUSAND, _HOUR = 10**6, 10**3, 3600

PER = {  # what a rate of a catalogue is for; the units of genai-prices
    "input_tokens": _MILLION,
    "output_tokens": _MILLION,
    "output_reasoning_tokens": _MILLION,
    "cache_read_tokens": _MILLION,
    "cache_write_tokens": _MILLION,
    "cache_write_1h_tokens": _MILLION,
    "input_audio_tokens": _MILLION,
    "output_audio_tokens": _MILLION,
    "cache_audio_read_tokens": _MILLION,
    "input_image_tokens": _MILLION,
    "output_image_tokens": _MILLION,
    "cache_image_read_tokens": _MILLION,
    "input_characters": _MILLION,
    "audio_seconds": _HOUR,
    "input_audio_seconds": _HOUR,
    "input_document_pages": _THOUSAND,
    "input_annotated_document_pages": _THOUSAND,
    "rerank_searches": _THOUSAND,
    "storage_searches": _THOUSAND,
    "web_searches": _THOUSAND,
    "requests": _THOUSAND,
}
_CONFIG = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write": "cache_write_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "reasoning": "output_reasoning_tokens",
    "input_audio": "input_audio_tokens",
    "output_audio": "output_audio_tokens",
    "requests": "requests",
    "web_searches": "web_searches",
}
_LITELLM = {
    "input_cost_per_token": ("input_tokens",),
    "output_cost_per_token": ("output_tokens",),
    "output_cost_per_reasoning_token": ("output_reasoning_tokens",),
    "cache_read_input_token_cost": ("cache_read_tokens",),
    "cache_creation_input_token_cost": ("cache_write_tokens",),
    "cache_creation_input_token_cost_above_1hr": ("cache_write_1h_tokens",),
    "input_cost_per_audio_token": ("input_audio_tokens",),
    "output_cost_per_audio_token": ("output_audio_tokens",),
    "cache_read_input_audio_token_cost": ("cache_audio_read_tokens",),
    "input_cost_per_image_token": ("input_image_tokens",),
    "output_cost_per_image_token": ("output_image_tokens",),
    "cache_read_input_image_token_cost": ("cache_image_read_tokens",),
    "input_cost_per_character": ("input_characters",),
    "input_cost_per_second": ("audio_seconds", "input_audio_seconds"),
    "input_cost_per_audio_per_second": ("audio_seconds", "input_audio_seconds"),
    "ocr_cost_per_page": ("input_document_pages",),
    "annotation_cost_per_page": ("input_annotated_document_pages",),
    "input_cost_per_query": ("rerank_searches",),
    "input_cost_per_request": ("requests",),
    "file_search_cost_per_1k_calls": ("storage_searches",),
}
_PER_THOUSAND = {"file_search_cost_per_1k_calls"}  # the one rate that is not for a single unit
_SERVICES = {
    "batches": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
}
_KEY = re.compile(
    r"(?P<base>\w+?)(?:_above_(?P<tier>\d+)k_tokens)?(?:_(?P<service>batches|flex|priority))?"
    r"(?:_above_(?P<after>\d+)k_tokens)?"
)
_SEARCH = "search_context_cost_per_query"
_SIZES = ("medium", "low", "high")  # the first one that is given counts where a call does not state its size


def from_config(models: Mapping[str, Price]) -> list[Override]:
    """Overrides from `prices.models`: "model" counts for every provider, "provider/model" for that one."""
    overrides = []
    for name, price in models.items():
        rates: Rates = {}
        for setting, key in _CONFIG.items():
            if (value := getattr(price, setting)) is not None:
                rates[key] = _text(value, 1, f"prices.models.{name}.{setting}")
        if not rates:
            continue  # says nothing
        model = Model(name=name, periods=[Period(When(), rates)])
        overrides.append(Override("*", name, model, "prices.models"))
        provider, slash, rest = name.partition("/")
        if slash:
            overrides.append(Override(provider, rest, model, "prices.models"))
    return overrides


def from_litellm(text: bytes, source: str) -> list[Override]:
    """Overrides from a file in LiteLLM's format.

    Raises ValueError, naming the entry, for what is not such a file. Entries without a rate known here are left out.
    """
    try:
        entries = msgspec.json.decode(text, type=dict[str, dict[str, object]])
    except msgspec.DecodeError as fault:
        raise ValueError(f"{source}: {fault}") from fault
    overrides = []
    for name, entry in entries.items():
        model = _model(name, entry, source) if name != "sample_spec" else Model()
        if not (model.periods or model.variants):
            continue
        provider = str(entry.get("litellm_provider", "*"))
        overrides += [Override(owner, name, model, source) for owner in dict.fromkeys((provider, ""))]
        if "/" in name:
            overrides.append(Override(provider, name.partition("/")[2], model, source))
    return overrides


def _model(name: str, entry: Mapping[str, object], source: str) -> Model:
    """The prices of one entry: its plain rates, and a variant for every service that has its own."""
    tables: dict[str, dict[str, dict[int, str]]] = {}  # service -> usage key -> tier start (0: base) -> rate
    for key, value in entry.items():
        read = _read(key)
        if read is None or not isinstance(value, int | float):
            continue
        base, start, service = read
        for usage_key in _LITELLM[base]:
            per = 1 if base in _PER_THOUSAND else PER[usage_key]
            table = tables.setdefault(service, {}).setdefault(usage_key, {})
            table[start] = _text(value, per, f"{source}: {name}.{key}")
    plain = _rates(tables.pop("", {}), {})
    variants = [Variant(_SERVICES[service], When(), _rates(table, plain)) for service, table in tables.items()]
    searches = dict(_searches(name, entry.get(_SEARCH), source))
    if searches:
        plain["web_searches"] = next(iter(searches.values()))
        variants += [
            Variant({"search_context_size": size}, When(), {"web_searches": rate}) for size, rate in searches.items()
        ]
    return Model(name=name, periods=[Period(When(), plain)] if plain else [], variants=variants)


@lru_cache(maxsize=1024)
def _read(key: str) -> tuple[str, int, str] | None:
    """(base key, start of the tier, service) of a rate; None for a key that is no rate known here."""
    found = _KEY.fullmatch(key)
    if found is None or found["base"] not in _LITELLM:
        return None
    return found["base"], int(found["tier"] or found["after"] or 0) * 1000, found["service"] or ""


def _rates(table: Mapping[str, Mapping[int, str]], plain: Rates) -> Rates:
    """Rates with their tiers; a tier without a base starts from the plain rate."""
    rates: Rates = {}
    for key, steps in table.items():
        tiers = [(start, rate) for start, rate in sorted(steps.items()) if start]
        base = steps.get(0, plain.get(key))
        if base is None:
            continue  # nothing says what the call costs below the tier
        base = base if isinstance(base, str) else base[0]
        rates[key] = (base, tiers) if tiers else base
    return rates


def _searches(name: str, sizes: object, source: str) -> Iterator[tuple[str, str]]:
    if isinstance(sizes, dict):
        for size in _SIZES:
            value = sizes.get(f"search_context_size_{size}")
            if isinstance(value, int | float):
                yield size, _text(value, _THOUSAND, f"{source}: {name}.{_SEARCH}")


def _text(value: float, per: int, where: str) -> str:
    """USD for `per` units as exact decimal text: what the shortest text of the number says."""
    if isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{where}: {value} is not a price")
    return str(Decimal(repr(value)) * per)
