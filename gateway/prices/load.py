"""Loads the price table of a process: a compiled catalogue, and the operator's overrides on top of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

import msgspec

from gateway.config.schema import Prices, Upstream
from gateway.policy.pricing import PriceTable
from gateway.prices.overrides import from_config, from_litellm

NONE: Mapping[str, Upstream] = MappingProxyType({})


def load(source: Path | bytes, prices: Prices | None = None, upstreams: Mapping[str, Upstream] = NONE) -> PriceTable:
    """A price table from a compiled catalogue and the configured overrides, for calls to these upstreams.

    Raises OSError or ValueError (msgspec.DecodeError included) for files that cannot be read or understood.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    urls = {name: urlsplit(one.url) for name, one in upstreams.items() if one.provider is None}
    places = {name: (url.hostname or "", url.path) for name, url in urls.items()}
    unlisted = [name for name, one in upstreams.items() if one.dialect == "ollama"]
    if prices is None or not (prices.models or prices.litellm_file):
        return PriceTable(data, places=places, unlisted=unlisted)
    digest = hashlib.sha256(msgspec.json.encode(prices.models, order="deterministic"))
    overrides = from_config(prices.models)
    if prices.litellm_file:
        path = Path(prices.litellm_file)
        text = path.read_bytes()
        digest.update(text)
        overrides += from_litellm(text, path.name)
    return PriceTable(data, overrides, tag=digest.hexdigest()[:8], places=places, unlisted=unlisted)
