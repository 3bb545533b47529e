"""The limits that came with a virtual key and with those it was made under, as `policy.limits` takes them."""

from __future__ import annotations

from functools import lru_cache

from gateway.config.schema import Budget, Rates
from gateway.key import Key, KeyBudget
from gateway.policy.limits import Owner
from gateway.spend import NANO_USD


def limits_of(key: Key) -> tuple[Budget | Rates, ...]:
    """For `Limits.demands(..., extra=...)`; the same tuple for the same limits, whatever else of the key changes."""
    return _limits(key.budgets, key.rpm, key.tpm, key.concurrency, key.burst)


def owners_above(key: Key) -> tuple[Owner, ...]:
    """The keys that it was made under, which it spends for, too."""
    return tuple([Owner(one.name or one.id, one.id, limits_of(one)) for one in key.above]) if key.above else ()


@lru_cache(maxsize=4096)
def _limits(
    budgets: tuple[KeyBudget, ...], rpm: int | None, tpm: int | None, concurrency: int | None, burst: int | None
) -> tuple[Budget | Rates, ...]:
    found: list[Budget | Rates] = [
        Budget(
            scope="key",
            usd=None if one.usd is None else one.usd / NANO_USD,
            tokens=one.tokens,
            per=one.per,
            rolling=one.rolling,
        )
        for one in budgets
    ]
    if rpm is not None or tpm is not None or concurrency is not None:
        found.append(Rates(scope="key", rpm=rpm, tpm=tpm, concurrency=concurrency, burst=burst))
    return tuple(found)
