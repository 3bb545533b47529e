"""The names of accounts, read again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.schema import Budget, Limits, Rates, Runs, Spending
from gateway.policy.account_names import Account, parse
from gateway.policy.ceiling import Worst
from gateway.policy.limits import Limits as AllLimits
from gateway.policy.limits import Scopes
from gateway.policy.window import UTC

NOW = 1_790_000_000_000_000_000


@pytest.mark.parametrize(
    ("name", "parts", "budget"),
    [
        ("global|usd|day|2026-11-27", Account("global", "", "usd", "day", "2026-11-27"), "global|usd|day"),
        ("team:a|usd|hour|rolling", Account("team", "a", "usd", "hour", "rolling"), "team:a|usd|hour|rolling"),
        ("run:r%7C1|calls|life", Account("run", "r|1", "calls", "life"), "run:r%7C1|calls|life"),
        ("key:k/agent:x%2Fy|tokens|rate", Account("agent", "x/y", "tokens", "rate", "", "k"), None),
        ("model:|concurrency", Account("model", "", "concurrency"), "model:|concurrency"),
        ("nonsense", Account("nonsense"), "nonsense:"),
    ],
)
def test_every_part_is_found(name: str, parts: Account, budget: str | None) -> None:
    assert parse(name) == parts
    assert parts.budget == (budget or name)


texts = st.text(st.sampled_from("ab|/%:25CF *"), max_size=12)


@given(texts, texts, texts)
def test_whatever_the_values_are_the_names_that_limits_make_are_read_again(team: str, key: str, run: str) -> None:
    budgets = [Budget(scope="team", usd=1.0), Budget(scope="key", usd=1.0, rolling=True), Budget(scope="run", tokens=5)]
    limits = AllLimits(budgets, Runs(), Limits(), Spending(), UTC)
    worst = Worst(nano_usd=1, tokens_in=1, tokens_out=1, basis="configured", each=1, choices=1)
    own = (Rates(scope="key", rpm=5), Budget(scope="agent", usd=1.0))
    ask = limits.demands(Scopes(team, key, "agent/1", run), worst, NOW, extra=own)
    told = [parse(demand.account) for demand in ask.demands]
    found = [(one.scope, one.value, one.unit, one.per, one.within) for one in told]
    wanted = [
        ("team", team, "usd", "month", None),
        ("key", key, "usd", "month", None),
        ("key", key, "calls", "rate", None),
        ("agent", "agent/1", "usd", "month", key),
    ]
    assert [one for one in found if one[0] != "run"] == wanted
    assert [one for one in found if one[0] == "run"] == ([("run", run, "tokens", "month", None)] if run else [])
    assert all(demand.account.startswith(one.budget) for demand, one in zip(ask.demands, told, strict=True))
