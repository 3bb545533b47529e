"""Which price list entry a (provider, model) pair means: pure search in a compiled catalogue.

The search without normalisation answers as genai-prices' `find_provider_model` does, including its order: the first
provider, and in it the first model, whose clause matches. Models are decoded when their provider is first asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from gateway.policy.model_ids import dashed_date, forms, is_bedrock
from gateway.policy.price_rules import Catalogue, Listing, Model, Provider, matches

# Names other systems give to providers that the catalogue's own clauses do not recognise.
ALIASES = {
    "azure_ai": "azure",
    "azure_text": "azure",
    "cohere_chat": "cohere",
    "fireworks_ai": "fireworks",
    "github_copilot": "github-copilot",
    "moonshot": "moonshotai",
    "text-completion-openai": "openai",
    "together_ai": "together",
    "together-ai": "together",
    "voyage": "voyageai",
    "xai": "x-ai",
}
_listings: msgspec.msgpack.Decoder[list[Listing]] = msgspec.msgpack.Decoder(list[Listing])
_model: msgspec.msgpack.Decoder[Model] = msgspec.msgpack.Decoder(Model)


class Found(NamedTuple):
    provider: str
    id: str
    model: Model


class Lookup:
    """Search in a catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._providers = catalogue.providers
        self._by_id = {provider.id: provider for provider in catalogue.providers}
        self._decoded: dict[str, list[Listing]] = {}

    def provider(self, name: str) -> Provider | None:
        """The provider of this id, or the first whose clause matches the name."""
        name = name.strip().lower()
        if found := self._by_id.get(ALIASES.get(name, name)):
            return found
        return next((p for p in self._providers if p.provider_match and matches(p.provider_match, name)), None)

    def by_url(self, url: str) -> str:
        """The id of the provider at this URL, "" when none is known."""
        return next((p.id for p in self._providers if re.match(p.api_pattern, url)), "")

    def find(self, provider: str, model: str) -> Found | None:
        """The entry for this pair as it is written, or else for the first of its more general forms that has one."""
        return next(filter(None, (self._exact(*pair) for pair in self.candidates(provider, model))), None)

    def candidates(self, provider: str, model: str) -> Iterator[tuple[str, str]]:
        """(provider, model) pairs from exact to general; the provider stays the stated one where it is known."""
        known = self.provider(provider) if provider else None
        for form in forms(model):
            yield provider, form
            if known is None and is_bedrock(form):
                yield "aws", form
            prefix, slash, rest = form.partition("/")
            if slash and (named := self.provider(prefix)):
                for tail in forms(rest):
                    yield (known or named).id, tail

    def _exact(self, provider: str, model: str) -> Found | None:
        model = model.lower()
        if provider.lower() == "litellm" and "/" in model:
            prefix, _, rest = model.partition("/")
            if self.provider(prefix):
                provider, model = prefix, rest
        owner = (self.provider(provider) if provider else None) or self._by_model(model)
        if owner is None:
            return None
        return self._in(owner, model) or (self._in(owner, dashed) if (dashed := dashed_date(model)) != model else None)

    def _by_model(self, model: str) -> Provider | None:
        return next((p for p in self._providers if p.model_match and matches(p.model_match, model)), None)

    def _in(self, provider: Provider, model: str) -> Found | None:
        if found := self._listed(provider, model):
            return Found(provider.id, *found)
        for name in provider.fallback:
            other = self._by_id.get(name)
            if other and (found := self._listed(other, model)):
                # another provider's model is sold at its standard price: its variants are that provider's own
                return Found(provider.id, found[0], msgspec.structs.replace(found[1], variants=[]))
        return None

    def names(self) -> frozenset[str]:
        """The ids of all models, each also without what stands before its last slash."""
        ids = {listing.id for provider in self._providers for listing in self._listings(provider)}
        return frozenset(ids | {name.rpartition("/")[2] for name in ids})

    def _listed(self, provider: Provider, model: str) -> tuple[str, Model] | None:
        for listing in self._listings(provider):
            if matches(listing.match, model):
                return listing.id, _model.decode(listing.model)
        return None

    def _listings(self, provider: Provider) -> list[Listing]:
        listings = self._decoded.get(provider.id)
        if listings is None:
            listings = self._decoded[provider.id] = _listings.decode(provider.models)
        return listings
