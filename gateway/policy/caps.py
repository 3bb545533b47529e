"""The limits that people set for scopes while the gateway runs, in the form in which `policy.limits` takes them. Pure.

They stand beside what is configured: a limit that has the account of another (same scope, value, unit and window)
shares it, and the tighter of the two counts. So what is spent already counts from the first call on.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import convert

from gateway.config.schema import Budget, Rates
from gateway.policy.controls import Cap, Caps
from gateway.spend import NANO_USD


def configured(caps: Mapping[tuple[str, str], Caps]) -> tuple[tuple[Budget, ...], tuple[Rates, ...]]:
    """For `Limits(budgets, ..., limits.rates)`. `caps`: by scope and value."""
    budgets, rates = [], []
    for (scope, value), of_scope in sorted(caps.items()):
        budgets += [_budget(scope, value, cap) for cap in of_scope.budgets]
        counts = {"rpm": of_scope.rpm, "tpm": of_scope.tpm, "concurrency": of_scope.concurrency}
        if any(count is not None for count in counts.values()):
            rates.append(convert({"scope": scope, "match": value, **counts, "burst": of_scope.burst}, Rates))
    return tuple(budgets), tuple(rates)


def _budget(scope: str, value: str, cap: Cap) -> Budget:
    usd = None if cap.usd is None else cap.usd / NANO_USD
    told = {"usd": usd, "tokens": cap.tokens, "per": cap.per, "rolling": cap.rolling, "on_exceed": cap.on_exceed}
    return convert({"scope": scope, "match": value, **told}, Budget)
