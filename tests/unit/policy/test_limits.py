from __future__ import annotations

from datetime import UTC
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.config.schema import Budget, Rates, Runs, Spending, TaperStep
from gateway.config.schema import Limits as LimitsConfig
from gateway.errors import BudgetExceeded, Rejected
from gateway.policy.ceiling import FREE, Worst
from gateway.policy.limits import SCOPES, Ask, Limits, Scopes, Told, nano, own_budget
from gateway.spend import NANO_USD, Demand, Rule, RunLimits, Unit

NOW = 1_795_780_800 * 10**9  # 2026-11-27T12:00:00Z
WHO = Scopes("payments", "k1", "coder", "r-1", "gpt-5", "openai")
WORST = Worst(1000, 500, 20_000_000, basis="client", each=500)


def limits(*budgets: Budget, runs: Runs | None = None, config: LimitsConfig | None = None, **spending: Any) -> Limits:
    return Limits(budgets, runs or Runs(), config or LimitsConfig(), Spending(**spending), UTC)


def ask(found: Limits, who: Scopes = WHO, worst: Worst = WORST, told: Told | None = None, **more: Any) -> Ask:
    return found.demands(who, worst, NOW, told or Told(), **more)


def test_demands_come_from_the_outside_to_the_inside():
    scopes = ["upstream", "model", "run", "agent", "key", "team", "global"]
    found = ask(limits(*(Budget(scope=scope, usd=5, per="day") for scope in scopes), runs=Runs(budget_usd=2)))
    assert [terms.scope for terms in found.terms] == [
        "global",
        "team",
        "key",
        "agent",
        "run",
        "run",
        "model",
        "upstream",
    ]
    assert [demand.account for demand in found.demands] == [
        "global|usd|day|2026-11-27",
        "team:payments|usd|day|2026-11-27",
        "key:k1|usd|day|2026-11-27",
        "agent:coder|usd|day|2026-11-27",
        "run:r-1|usd|life",
        "run:r-1|usd|day|2026-11-27",
        "model:gpt-5|usd|day|2026-11-27",
        "upstream:openai|usd|day|2026-11-27",
    ]
    assert {demand.amount for demand in found.demands} == {20_000_000}


def test_money_and_tokens_of_one_budget_are_two_accounts():
    money, tokens = ask(limits(Budget(scope="team", usd=5, tokens=900, per="hour"))).demands
    assert (money.unit, money.amount, money.limit) == (Unit.USD, 20_000_000, 5 * NANO_USD)
    assert (tokens.unit, tokens.amount, tokens.limit) == (Unit.TOKENS, 1500, 900)
    assert (money.since, money.until) == (NOW, NOW + 3600 * 10**9)
    assert money.label == "team payments, per hour"


def test_rolling_and_life():
    found = ask(limits(Budget(scope="key", usd=1, per="day", rolling=True), Budget(scope="key", usd=9, per="life")))
    rolling, life = found.demands
    assert rolling == Demand(
        "key:k1|usd|day|rolling", Rule.ROLLING, Unit.USD, 20_000_000, NANO_USD, period=86_400 * 10**9,
        label="key k1, in any day",
    )  # fmt: skip
    assert (life.account, life.rule, life.until) == ("key:k1|usd|life", Rule.TOTAL, 0)


def test_rates_of_keys_and_of_other_scopes():
    config = LimitsConfig(
        rpm=60, tpm=9000, concurrency=4, rates=(Rates(scope="model", match="gpt-*", rpm=30, burst=3),)
    )
    calls, tokens, slots, model = ask(limits(config=config)).demands
    minute = 60 * 10**9
    assert calls == Demand("key:k1|calls|rate", Rule.RATE, Unit.CALLS, 1, 60, 0, 0, minute, 10, "key k1, per minute")
    assert (tokens.rule, tokens.unit, tokens.amount, tokens.burst) == (Rule.RATE, Unit.TOKENS, 1500, 0)
    assert (slots.rule, slots.amount, slots.limit) == (Rule.SLOTS, 1, 4)
    assert (model.account, model.limit, model.burst) == ("model:gpt-5|calls|rate", 30, 3)


def test_limits_of_a_run():
    runs = Runs(budget_usd=2, max_calls=200, max_steps=40, max_tools=300, max_minutes=0.5, max_depth=3)
    found = ask(limits(runs=runs), told=Told(steps=1, tools=7, depth=2)).demands
    assert [(d.unit, d.rule, d.amount, d.limit) for d in found] == [
        (Unit.USD, Rule.TOTAL, 20_000_000, 2 * NANO_USD),
        (Unit.CALLS, Rule.TOTAL, 1, 200),
        (Unit.STEPS, Rule.TOTAL, 1, 40),
        (Unit.TOOLS, Rule.TOTAL, 7, 300),
        (Unit.SECONDS, Rule.AGE, 0, 30),
        (Unit.DEPTH, Rule.LEVEL, 2, 3),
    ]
    assert {d.account.split("|")[0] for d in found} == {"run:r-1"}
    assert ask(limits(runs=runs), Scopes("payments", "k1")).demands == ()


@pytest.mark.parametrize(
    ("configured", "header", "raised", "limit"),
    [
        (2, None, None, 2), (2, 1, None, 1), (2, 3, None, 2), (None, 3, None, 3), (None, None, None, None),
        (2, None, 5, 5), (2, 1, 5, 5), (None, None, 5, 5), (2, None, 0, 0), (2, 0, None, 0),
    ],
)  # fmt: skip
def test_a_client_only_tightens_and_a_person_decides(configured: Any, header: Any, raised: Any, limit: Any):
    told = Told(*(None if usd is None else usd * NANO_USD for usd in (header, raised)))
    found = ask(limits(runs=Runs(budget_usd=configured)), told=told).demands
    assert [d.limit for d in found] == ([] if limit is None else [limit * NANO_USD])


@given(st.none() | st.integers(1, 10**6), st.integers(0, 10**15))
def test_no_header_ever_loosens(configured: int | None, header: int):
    found = ask(limits(runs=Runs(budget_usd=configured)), told=Told(header=header)).demands
    assert found[0].limit <= header
    assert configured is None or found[0].limit <= configured * NANO_USD


@pytest.mark.parametrize(
    ("header", "amount"),
    [
        (b"2", 2 * NANO_USD),
        (b" $0.25 ", NANO_USD // 4),
        (b"0", 0),
        (b"1.0000000019", NANO_USD + 1),
        (b"0.000001", 1000),
    ],
)
def test_the_header_of_a_client(header: bytes, amount: int):
    assert own_budget(header) == amount


@pytest.mark.parametrize("header", [b"", b"-1", b"1e3", b"nan", b"1,5", b"2 USD", b"99999999999", "٣".encode()])
def test_a_header_that_is_no_amount_is_refused(header: bytes):
    with pytest.raises(Rejected) as caught:
        own_budget(header)
    assert caught.value.code == "invalid_budget"


def test_tokens_that_nobody_can_count():
    """Denied under a budget in tokens, as unknown prices are under one in money; rates let them pass."""
    unread = Worst(nano_usd=None, estimated=True, basis="unknown")
    with pytest.raises(BudgetExceeded) as caught:
        ask(limits(Budget(scope="team", tokens=100)), worst=unread)
    assert caught.value.code == "usage_unknown"
    allowed = ask(limits(Budget(scope="team", tokens=100), unknown_price="allow"), worst=unread)
    assert [d.amount for d in allowed.demands] == [0]
    assert ask(limits(config=LimitsConfig(rates=(Rates(scope="team", tpm=100),))), worst=unread).demands


def test_nobody_goes_past_the_budgets_of_runs_by_naming_none():
    unread = Worst(nano_usd=None, estimated=True, basis="unknown")
    for runs, how, denied in (
        (Runs(budget_usd=1), "deny", True),
        (Runs(budget_usd=1), "allow", False),
        (Runs(max_calls=1), "deny", False),
    ):
        made = limits(runs=runs, unknown_price=how)
        if denied:
            with pytest.raises(BudgetExceeded):
                made.demands(Scopes(), unread, NOW)
        else:
            assert made.demands(Scopes(), unread, NOW).demands == ()


def test_unknown_prices():
    unknown = Worst(10, 10, None, basis="client")
    budgets = (Budget(scope="team", usd=5), Budget(scope="team", tokens=100))
    with pytest.raises(BudgetExceeded) as caught:
        ask(limits(*budgets), worst=unknown)
    assert (caught.value.code, caught.value.status, caught.value.param) == ("price_unknown", 402, "model")
    ceiling = ask(limits(*budgets, unknown_price="ceiling", ceiling_usd=0.5), worst=unknown)
    assert [d.amount for d in ceiling.demands] == [NANO_USD // 2, 20]
    assert [d.amount for d in ask(limits(*budgets, unknown_price="allow"), worst=unknown).demands] == [0, 20]
    assert [d.amount for d in ask(limits(budgets[1]), worst=unknown).demands] == [20]


def test_what_is_free_asks_for_no_money():
    config = LimitsConfig(rpm=10, concurrency=2)
    found = ask(limits(Budget(scope="key", usd=1, tokens=5), runs=Runs(max_calls=1), config=config), worst=FREE)
    assert [d.unit for d in found.demands] == [Unit.CALLS, Unit.CONCURRENCY]


def test_soft_budgets_reserve_what_is_usual_and_hard_ones_never():
    budgets = (
        Budget(scope="team", usd=5, soft=True),
        Budget(scope="key", usd=5),
        Budget(scope="agent", tokens=9, soft=True),
    )
    usual = Told(usual_nano=1_000_000, usual_tokens=70)
    assert [d.amount for d in ask(limits(*budgets), told=usual).demands] == [1_000_000, 20_000_000, 70]
    assert [d.amount for d in ask(limits(*budgets)).demands] == [20_000_000, 20_000_000, 1500]
    more = Told(usual_nano=NANO_USD, usual_tokens=10**9)
    assert [d.amount for d in ask(limits(*budgets), told=more).demands] == [20_000_000, 20_000_000, 1500]


def test_of_two_limits_on_one_account_the_tighter_counts_once():
    loose = Budget(scope="team", match="*", usd=9, per="day", soft=True)
    tight = Budget(scope="team", match="pay*", usd=3, per="day", on_exceed="queue")
    for order in ((loose, tight), (tight, loose)):
        found = ask(limits(*order), told=Told(usual_nano=1))
        assert [(d.limit, d.amount) for d in found.demands] == [(3 * NANO_USD, 20_000_000)]
        assert found.terms[0].on_exceed == "queue"
    run = ask(limits(Budget(scope="run", usd=1, per="life"), runs=Runs(budget_usd=2)))
    assert [d.limit for d in run.demands] == [NANO_USD]


def test_of_a_hard_limit_and_a_tighter_soft_one_the_worst_case_is_held():
    hard = Budget(scope="team", match="*", usd=9, per="day")
    soft = Budget(scope="team", match="pay*", usd=3, per="day", soft=True)
    for order in ((hard, soft), (soft, hard)):
        found = ask(limits(*order), told=Told(usual_nano=1))
        assert [(d.limit, d.amount) for d in found.demands] == [(3 * NANO_USD, 20_000_000)]


def test_a_burst_is_at_most_the_rate_and_the_least_of_those_that_match():
    def bursts(*rates: Rates) -> list[tuple[int, int]]:
        return [(d.limit, d.burst) for d in ask(limits(config=LimitsConfig(rates=rates))).demands]

    one, other = Rates(scope="key", rpm=10, burst=5), Rates(scope="key", match="k*", rpm=20, burst=2)
    assert bursts(Rates(scope="key", rpm=4, burst=10)) == [(4, 4)]
    assert bursts(one, other) == bursts(other, one) == [(10, 2)]


def test_what_changes_between_two_calls_of_a_run_is_not_taken_from_memory():
    found = limits(Budget(scope="model", usd=1, per="life"))
    calls = [d.limit for n in (3, 5) for d in ask(found, told=Told(own=RunLimits(calls=n))).demands if d.limit < 9]
    assert calls == [3, 5]
    beside = replace(WHO, beside=("gpt-4o",))
    assert [len(ask(found, who).demands) for who in (WHO, beside, WHO)] == [1, 2, 1]


def test_limits_of_a_key_lie_within_it():
    own = (
        Budget(scope="key", match="ignored", usd=1, per="day"),
        Budget(scope="model", match="gpt*", usd=2, per="day"),
        Budget(scope="model", match="claude*", usd=3, per="day"),
        Budget(scope="run", usd=0.5, per="life"),
        Rates(scope="key", rpm=6),
    )
    found = ask(limits(Budget(scope="model", usd=7, per="day")), extra=own)
    assert [(d.account, d.limit) for d in found.demands] == [
        ("key:k1|usd|day|2026-11-27", NANO_USD),
        ("key:k1|calls|rate", 6),
        ("key:k1/run:r-1|usd|life", NANO_USD // 2),
        ("model:gpt-5|usd|day|2026-11-27", 7 * NANO_USD),
        ("key:k1/model:gpt-5|usd|day|2026-11-27", 2 * NANO_USD),
    ]
    assert found.demands[-1].label == "model gpt-5 of key k1, per day"


def test_terms_go_with_their_demands():
    steps = (TaperStep(at=0.5, effort="low"),)
    budget = Budget(scope="team", usd=5, tokens=5, on_exceed="clamp", taper=steps)
    found = ask(limits(budget, runs=Runs(budget_usd=1, max_calls=3, on_exceed="queue", taper=steps)))
    assert [(t.on_exceed, t.taper) for t in found.terms] == [
        ("clamp", steps), ("clamp", steps), ("queue", steps), ("refuse", ()),
    ]  # fmt: skip


def test_a_new_window_is_a_new_account_and_a_changed_limit_the_same():
    day, next_day = (
        limits(Budget(scope="key", usd=1, per="day")).demands(WHO, WORST, at).demands[0].account
        for at in (NOW, NOW + 13 * 3600 * 10**9)
    )
    assert day != next_day
    found = limits(Budget(scope="key", usd=1, per="hour"))
    hour = ask(found).demands[0]
    later = found.demands(WHO, WORST, hour.until).demands[0]
    assert (later.since, found.demands(WHO, WORST, hour.until - 1).demands[0]) == (hour.until, hour)
    assert ask(limits(Budget(scope="key", usd=99, per="day"))).demands[0].account == day


@pytest.mark.parametrize("pair", [("a|b", "a%7Cb"), ("a/b", "a%2Fb"), ("a%b", "a%25b")])
def test_no_value_takes_the_account_of_another(pair: tuple[str, str]):
    found = limits(Budget(scope="model", usd=1))
    accounts = {ask(found, Scopes(model=model)).demands[0].account for model in pair}
    assert len(accounts) == 2


def test_a_model_has_one_account_by_all_of_its_names():
    found = limits(Budget(scope="model", match="GPT-5*", usd=1), Budget(scope="model", match="models/gemini-x", usd=1))
    for name in ("gpt-5-mini", "GPT-5-mini", "Gpt-5-MINI", "models/gpt-5-mini"):
        assert [d.account for d in ask(found, Scopes(model=name)).demands] == ["model:gpt-5-mini|usd|month|2026-11"]
    assert ask(found, Scopes(model="gemini-x")).demands == ask(found, Scopes(model="models/Gemini-X")).demands != ()


def test_models_that_may_answer_in_its_place_count_too_each_once():
    found = limits(Budget(scope="model", match="gpt-*", usd=1, per="life"))
    who = Scopes(model="gpt-5-mini", beside=("claude-x", "gpt-5", "GPT-5-mini", "gpt-5"))
    assert [d.account for d in ask(found, who).demands] == ["model:gpt-5-mini|usd|life", "model:gpt-5|usd|life"]


names = st.sampled_from(["", "a", "ab", "abc", "b", "b.c", "a*c"])
patterns = st.sampled_from(["*", "a", "a*", "*c", "a*c", "b.c", "*b*"])
who = st.builds(Scopes, names, names, names, names, names, names)
configured = st.lists(
    st.builds(
        Budget,
        scope=st.sampled_from(SCOPES),
        match=patterns,
        usd=st.sampled_from([1.0, 2.0, 3.0]),
        per=st.sampled_from(["minute", "day", "month", "life"]),
        rolling=st.booleans(),
    ),
    max_size=6,
)


@given(configured, who)
def test_no_limit_that_matches_is_missed_and_none_stands_twice(budgets: list[Budget], scopes: Scopes):
    found = ask(limits(*budgets), scopes).demands
    accounts = [demand.account for demand in found]
    assert len(accounts) == len(set(accounts))
    expected: dict[tuple[str, str], int] = {}
    for budget in budgets:
        value = getattr(scopes, budget.scope, "")
        if budget.scope == "run" and not value:
            continue
        if budget.scope == "global" or fnmatchcase(value, budget.match):
            window = f"{budget.per}|rolling" if budget.rolling and budget.per != "life" else budget.per
            key = (budget.scope if budget.scope == "global" else f"{budget.scope}:{value}", window)
            expected[key] = min(expected.get(key, 10**18), nano(budget.usd) or 0)
    got = {}
    for demand in found:
        owner, _, rest = demand.account.partition("|usd|")
        window = rest if rest.endswith("rolling") else rest.partition("|")[0]
        got[owner, window] = demand.limit
    assert got == expected
    order = [SCOPES.index(demand.account.partition("|")[0].partition(":")[0]) for demand in found]
    assert order == sorted(order)


@given(configured, who)
def test_what_is_remembered_changes_nothing(budgets: list[Budget], scopes: Scopes):
    found = limits(*budgets)
    ask(found, scopes, FREE)
    ask(found, Scopes("a", "b", "a", "zzz", "a", "b"))
    assert ask(found, scopes) == ask(limits(*budgets), scopes)
