"""What a call costs. Pure: a compiled catalogue and the operator's overrides in, whole pico-USD out.

`PriceTable` implements `ports.Prices`. Resolving a (provider, model) pair takes a search and is remembered in a bounded
map, also when nothing is found; pricing a call of a known pair is a handful of integer products.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import Struct

from gateway.call import Money, Usage
from gateway.policy.model_ids import LONGEST
from gateway.policy.price_lookup import Found, Lookup
from gateway.policy.price_rules import (
    FORMAT,
    MOST,
    Catalogue,
    Model,
    Plan,
    Rate,
    Rates,
    Variant,
    When,
    overlay,
    rates_at,
    rounded,
    span_of,
)

CONTEXTS = 64
"""Plans kept per model; the values of a context come from upstreams, so their number must have a bound."""
HOSTS = (
    (re.compile(r"bedrock[a-z-]*\.[a-z0-9-]+\.(?:amazonaws\.com|api\.aws)"), "aws"),
    (re.compile(r"api\.together\.ai"), "together"),
    (re.compile(r"codestral\.mistral\.ai"), "mistral"),
)
"""Hosts that the patterns of the catalogue leave out."""
NOWHERE: Mapping[str, tuple[str, str]] = MappingProxyType({})

_catalogue: msgspec.msgpack.Decoder[Catalogue] = msgspec.msgpack.Decoder(Catalogue)


class Override(Struct, frozen=True, gc=False):
    """The operator's own price of a model.

    `provider` is a provider id, "*" for every provider, or "" for calls whose provider is not known.
    What `price` leaves unset keeps its base price, but the parts of what it sets follow it.
    """

    provider: str
    model: str
    price: Model
    source: str  # "prices.models", or the name of the file


class Entry:
    """What is remembered of a (provider, model) pair: the lists that price it, and the plans made from them."""

    __slots__ = ("found", "keys", "layers", "overrides", "plan", "plans")

    def __init__(self, found: Found | None, overrides: Sequence[Override]) -> None:
        self.found = found
        self.overrides = overrides
        self.layers = [*([found.model] if found else []), *(override.price for override in overrides)]
        keys = {key for layer in self.layers for variant in layer.variants for key in variant.context}
        if "processing" in keys:
            keys.add("service_tier")  # see _chosen
        self.keys = tuple(sorted(keys))  # of the context, those that matter
        self.plan: Plan | None = None  # the latest one without context
        self.plans: dict[tuple[str | None, ...], Plan] = {}  # by the values of `keys`


class PriceTable:
    """Prices of models. Immutable but for what it remembers; one per process.

    `data` is a compiled catalogue; `tag` names the set of overrides in `version`. Of several sources of overrides the
    earlier ones lie on top of the later ones; of several overrides from one source the first one counts.
    `places`: host and path of the upstreams whose provider nobody stated; see `provider_of`. `unlisted`: those that run
    models of others themselves, so that no list of the catalogue says what they cost.
    Raises msgspec.DecodeError for what is no catalogue, ValueError for one of another format.
    """

    def __init__(
        self,
        data: bytes,
        overrides: Sequence[Override] = (),
        *,
        tag: str = "",
        remembered: int = 4096,
        places: Mapping[str, tuple[str, str]] = NOWHERE,
        unlisted: Collection[str] = (),
    ) -> None:
        catalogue = _catalogue.decode(data)
        if catalogue.format != FORMAT:
            raise ValueError(f"price catalogue of format {catalogue.format}, not {FORMAT}")
        self.source = catalogue.source
        self.version = f"{catalogue.source}+overrides-{tag}" if tag else catalogue.source
        self._units = catalogue.units
        self._lookup = Lookup(catalogue)
        names = {name: self._lookup.provider(name) if name else None for name in {o.provider for o in overrides}}
        self._overrides: dict[str, dict[tuple[str, str], Override]] = {}
        for o in overrides:
            owner = known.id if (known := names[o.provider]) else o.provider.lower()
            self._overrides.setdefault(o.source, {}).setdefault((owner, o.model.lower()), o)
        self._named = frozenset(name for name, place in places.items() if not self.guess_provider(*place))
        self._unlisted = self._named.intersection(unlisted)
        self._recent: dict[tuple[str, str], Entry | None] = {}
        self._older: dict[tuple[str, str], Entry | None] = {}
        self._half = max(remembered // 2, 1)
        self._no_price = Money(None, {}, self.version, "no_price")
        self._no_usage = Money(None, {}, self.version, "no_usage")
        self._free = Money(0, {"input": 0, "output": 0}, self.version, "free")

    def price(
        self, provider: str, model: str, usage: Usage, at: float, context: Mapping[str, str] | None = None
    ) -> Money:
        """The cost of `usage` at `at` (epoch seconds). `context`: service_tier, speed, processing, route, search_type.

        `total` is None with status `no_price` where the model, or everything it was used for, has no price, and with
        `no_usage` where the usage is not a count (negative, not finite). Never raises.
        """
        try:
            entry = self._recent[provider, model]
        except KeyError:
            entry = self._entry(provider, model)
        if entry is None:
            return self._no_price
        plan = entry.plan
        if (context and entry.keys) or plan is None or not plan.since <= at < plan.until:
            plan = self._plan(entry, at, context)
        read, write, reasoning = usage.cache_read_tokens, usage.cache_write_tokens, usage.reasoning_tokens
        fresh, output = usage.input_tokens - read - write, usage.output_tokens - reasoning
        if (
            (usage.detail and any(map(usage.detail.get, plan.keys)))
            or not (0 <= fresh <= MOST and 0 <= output <= MOST)
            or not (0 <= read <= MOST and 0 <= write <= MOST and 0 <= reasoning <= MOST)
        ):
            return self._uncommon(plan, usage)
        bracket = bisect_left(plan.starts, usage.input_tokens) if plan.starts else 0
        of_fresh, of_read, of_write, of_output, of_reasoning = plan.core[bracket]
        costs = [
            fresh * of_fresh, read * of_read, write * of_write, output * of_output, reasoning * of_reasoning,
            plan.fixed[bracket],
        ]  # fmt: skip
        if plan.scale != 1:
            costs = rounded(costs, plan.scale)
        total = sum(costs)
        if not total or type(total) is not int:
            return self._uncommon(plan, usage)
        return Money(total, _components(costs), self.version, "priced")

    def knows(self, provider: str, model: str) -> bool:
        """Is there a price for this model? A model that is free has one."""
        return self._entry(provider, model) is not None

    def names(self) -> frozenset[str]:
        """The models of the catalogue by their ids; overrides are not among them."""
        return self._lookup.names()

    def guess_provider(self, host: str, url_path: str = "") -> str:
        """The genai-prices provider id of an upstream, from its host (and path); "" when it is none of those known."""
        labels = host.lower().rstrip(".").split(".")
        for first in range(len(labels) - 1):  # regional hosts: eu.api.openai.com
            name = ".".join(labels[first:])
            if found := self._lookup.by_url(f"https://{name}/{url_path.lstrip('/')}"):
                return found
            if found := next((provider for pattern, provider in HOSTS if pattern.fullmatch(name)), ""):
                return found
        return ""

    def provider_of(self, upstream: str, host: str, url_path: str = "") -> str:
        """The provider of an upstream that states none: by its host, else what the upstream is called.

        Such a name may be one of the catalogue's (a proxy in front of Groq, called groq), and prices go by it; a model
        that its list lacks is then looked up by the model's name alone, for a name proves little.
        """
        return self.guess_provider(host, url_path) or upstream

    def describe(self, provider: str, model: str) -> dict[str, Any]:
        """Everything known of a model's price, as JSON values; `{"known": False, ...}` when there is none.

        Rates are USD for the number of units stated as `per`.
        """
        head: dict[str, Any] = {"provider": provider, "model": model, "known": False, "version": self.version}
        entry = self._entry(provider, model)
        if entry is None:
            return head
        found, overrides = entry.found, entry.overrides
        head |= {"known": True, "source": overrides[-1].source if overrides else self.source}
        if found:
            head |= {"provider": found.provider, "matched": found.id, "name": found.model.name}
            head |= self._listing(found.model)
        if overrides:  # the last one on top
            head["overrides"] = [
                {"source": o.source, "provider": o.provider, "model": o.model, **self._listing(o.price)}
                for o in overrides
            ]
        return head

    def _listing(self, model: Model) -> dict[str, Any]:
        listing: dict[str, Any] = {
            "prices": [{**_when(p.when), "rates": self._rates(p.rates)} for p in model.periods],
            "variants": [
                {"context": v.context, **_when(v.when), "rates": self._rates(v.rates)} for v in model.variants
            ],
        }
        return listing | ({"minimum": model.least} if model.least else {})

    def _rates(self, rates: Rates) -> dict[str, Any]:
        return {key: {"per": self._units[key].per, **_usd(rate)} for key, rate in rates.items() if key in self._units}

    def _entry(self, provider: str, model: str) -> Entry | None:
        key = provider, model
        if key in self._recent:
            return self._recent[key]
        if not model or len(model) > LONGEST or len(provider) > LONGEST:
            return None
        if len(self._recent) >= self._half:  # two generations: what was asked for lately survives
            self._older, self._recent = self._recent, {}
        entry = self._older[key] if key in self._older else self._resolve(provider, model)
        self._recent[key] = entry
        return entry

    def _resolve(self, provider: str, model: str) -> Entry | None:
        found = None
        if provider not in self._unlisted:
            found = self._lookup.find(provider, model)
            if found is None and provider in self._named:
                found = self._lookup.find("", model)
        overrides = [o for table in reversed(self._overrides.values()) if (o := self._override(table, provider, model))]
        return Entry(found, overrides) if found or overrides else None

    def _override(self, table: Mapping[tuple[str, str], Override], provider: str, model: str) -> Override | None:
        known = self._lookup.provider(provider) if provider else None
        names = (known.id if known else "", *([""] if provider in self._named else []), "*")
        for owner, form in self._lookup.candidates(provider, model):
            for name in (provider.lower(), owner, *names):
                if override := table.get((name, form)):
                    return override
        return None

    def _plan(self, entry: Entry, at: float, context: Mapping[str, str] | None) -> Plan:
        key = tuple(map(context.get, entry.keys)) if context else ()
        plan = entry.plans.get(key)
        if plan is None or not plan.since <= at < plan.until:
            if len(entry.plans) >= CONTEXTS:
                entry.plans.clear()
            plan = entry.plans[key] = self._make(entry, at, dict(zip(entry.keys, key, strict=False)))
        if not key:
            entry.plan = plan
        return plan

    def _make(self, entry: Entry, at: float, context: Mapping[str, str | None]) -> Plan:
        rates: Rates = {}
        least: dict[str, float] = {}
        spans = []
        for layer in entry.layers:
            rates = overlay(rates, rates_at(layer, at, _chosen(layer.variants, context)), self._units)
            least |= layer.least
            spans.append(span_of(layer, at))
        return Plan(rates, self._units, least, (max(s for s, _ in spans), min(u for _, u in spans)))

    def _uncommon(self, plan: Plan, usage: Usage) -> Money:
        """The price of usage that counts more than the core, contradicts itself, or costs nothing."""
        counts: dict[str, float] = dict(usage.detail)
        counts["input_tokens"] = usage.input_tokens
        counts["cache_read_tokens"] = usage.cache_read_tokens
        counts["cache_write_tokens"] = usage.cache_write_tokens
        counts["output_tokens"] = usage.output_tokens
        counts["output_reasoning_tokens"] = usage.reasoning_tokens
        if plan.least and (reported := next((counts[key] for key in plan.least if counts.get(key)), 0)):
            counts |= {key: max(reported, least) for key, least in plan.least.items()}
        costs = plan.costs(counts, bisect_left(plan.starts, usage.input_tokens))
        if costs is None:
            return self._no_usage
        if total := sum(costs):
            return Money(total, _components(costs), self.version, "priced")
        return self._nothing(plan, counts)

    def _nothing(self, plan: Plan, counts: Mapping[str, float]) -> Money:
        """What a cost of zero means: free of charge, too little to count, nothing used, or nothing known."""
        used = [any(term.rates) for term in plan.terms if counts.get(term.key)]
        if plan.free or (used and not any(used)):
            return self._free
        if used or not any(count for key, count in counts.items() if key in self._units):
            return Money(0, {"input": 0, "output": 0}, self.version, "priced")
        return self._no_price  # used for something the list has no rate for: unknown, and so never shown as nothing


def _components(costs: Sequence[int]) -> dict[str, int]:
    """Input and output always, the others where they cost something."""
    fresh, read, write, output, reasoning, tools = costs
    components = {"input": fresh, "output": output}
    if read:
        components["cache_read"] = read
    if write:
        components["cache_write"] = write
    if reasoning:
        components["reasoning"] = reasoning
    if tools:
        components["tools"] = tools
    return components


def _chosen(variants: Sequence[Variant], context: Mapping[str, str | None]) -> list[Variant]:
    """The variants whose every condition the context meets."""
    if context.get("service_tier") == "batch":  # how Anthropic's answers state what price lists call processing
        context = {**context, "processing": "batch"}
    return [v for v in variants if all(context.get(key) == value for key, value in v.context.items())]


def _when(when: When) -> dict[str, Any]:
    if when.since is not None:
        return {"since": datetime.fromtimestamp(when.since, UTC).isoformat()}
    if when.daily is not None:
        return {"daily_utc": [str(timedelta(seconds=time)) for time in when.daily]}
    return {}


def _usd(rate: Rate) -> dict[str, Any]:
    if isinstance(rate, str):
        return {"usd": float(rate)}
    base, tiers = rate
    return {"usd": float(base), "tiers": [{"above_input_tokens": start, "usd": float(usd)} for start, usd in tiers]}
