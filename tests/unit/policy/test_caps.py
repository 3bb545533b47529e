"""Limits set while the gateway runs, beside those of the configuration."""

from __future__ import annotations

from datetime import UTC

import pytest

from gateway.config.schema import Budget, Rates, Runs, Spending
from gateway.config.schema import Limits as LimitsConfig
from gateway.policy.caps import configured
from gateway.policy.ceiling import Worst
from gateway.policy.controls import Cap, Caps
from gateway.policy.limits import Limits, Scopes

NOW = 1_790_000_000_000_000_000
USD = 10**9
WORST = Worst(10, 20, 5 * USD, False, "client", 20)


def test_caps_become_budgets_and_rates() -> None:
    caps = {
        ("team", "a*"): Caps((Cap(2 * USD, None, "day", False, "queue"), Cap(tokens=500, rolling=True)), 6, burst=2),
        ("global", "*"): Caps(concurrency=3),
        ("model", "x"): Caps((Cap(usd=1, per="life"),)),
    }  # fmt: skip
    budgets, rates = configured(caps)
    assert budgets == (
        Budget(scope="model", match="x", usd=1e-9, per="life"),
        Budget(scope="team", match="a*", usd=2, per="day", on_exceed="queue"),
        Budget(scope="team", match="a*", tokens=500, rolling=True),
    )
    assert rates == (Rates(scope="global", concurrency=3), Rates(scope="team", match="a*", rpm=6, burst=2))
    assert configured({}) == ((), ())


@pytest.mark.parametrize(("capped", "limit"), [(3, 3), (50, 10)])
def test_a_cap_shares_the_account_of_a_configured_budget_and_only_tightens_it(capped: int, limit: int) -> None:
    budgets, _ = configured({("team", "*"): Caps((Cap(usd=capped * USD, per="day"),))})
    own = Budget(scope="team", match="a", usd=10, per="day")
    limits = Limits((own, *budgets), Runs(), LimitsConfig(), Spending(), UTC)
    (demand,) = limits.demands(Scopes(team="a"), WORST, NOW).demands
    assert demand.account.startswith("team:a|usd|day|")
    assert demand.limit == limit * USD
