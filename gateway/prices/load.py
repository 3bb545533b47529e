"""Loads the price table of a process: a compiled catalogue, and the operator's overrides on top of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from gateway.config.schema import Prices
from gateway.policy.pricing import PriceTable
from gateway.prices.overrides import from_config, from_litellm


def load(source: Path | bytes, prices: Prices | None = None) -> PriceTable:
    """A price table from a compiled catalogue and the configured overrides.

    Raises OSError or ValueError (msgspec.DecodeError included) for files that cannot be read or understood.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    if prices is None or not (prices.models or prices.litellm_file):
        return PriceTable(data)
    digest = hashlib.sha256(msgspec.json.encode(prices.models, order="deterministic"))
    overrides = from_config(prices.models)
    if prices.litellm_file:
        path = Path(prices.litellm_file)
        text = path.read_bytes()
        digest.update(text)
        overrides += from_litellm(text, path.name)
    return PriceTable(data, overrides, tag=digest.hexdigest()[:8])
