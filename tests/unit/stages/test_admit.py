"""Admission on books in memory: what is held, what is refused, and what makes a call fit."""

from __future__ import annotations

import gzip
import json
from datetime import UTC
from typing import Any

import pytest
from msgspec import structs

from gateway.call import Call
from gateway.config.schema import Budget, Rates, Runs, Spending, TaperStep
from gateway.config.schema import Limits as LimitsConfig
from gateway.errors import GatewayError
from gateway.journal.convert import overhead_ns
from gateway.key import Key, KeyBudget
from gateway.pipeline import serve
from gateway.policy.controls import Decision, Kind, Scope, after
from gateway.policy.limits import Limits
from gateway.policy.window import Calendar
from gateway.spend import NANO_USD, Charge, Demand, Rule, RunLimits, Unit
from gateway.testing.doubles import World, ask, drive
from gateway.testing.memory_budgets import MemoryBudgets, limit

JSON = ((b"Content-Type", b"application/json"),)
CHAT = "/v1/chat/completions"
ANSWER = (
    b'{"id":"c","object":"chat.completion","model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}'
)
COST = 9_000  # nano-USD of that answer at the world's prices
RUN = "run:run-1|usd|life"


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "gpt-4o", "max_tokens": 100, "messages": [], **fields}).encode()


def call(world: World, request: bytes = b"", *headers: tuple[bytes, bytes], path: str = CHAT) -> Call:
    """One call through the world, to its record."""
    world.answer(200, JSON, [ANSWER])
    drive(serve(ask(path, request or body(), *headers), world.down, world.gateway()))
    return world.journal.records[-1]


def limited(**limits: Any) -> tuple[World, MemoryBudgets]:
    world = World()
    return world, limit(world, **limits)


SECRET = (b"authorization", b"Bearer tg-k1-secret")


class OneKey:
    """`ports.Keys`: whoever comes has this one."""

    required = True

    def __init__(self, key: Key) -> None:
        self.key = key

    def find(self, presented: bytes) -> Key | None:
        return self.key


def keyed(key: Key) -> tuple[World, MemoryBudgets]:
    world = World(auth=((b"authorization", b"Bearer upstream"),))
    world.settings["keys"] = OneKey(key)
    return world, limit(world)


def decide(world: World, kind: Kind, **more: Any) -> None:
    world.controls.take([after(None, Decision(kind, Scope.RUN, "run-1", at=1, **more), 1)])


def fill(books: MemoryBudgets, amount: int, limit: int = NANO_USD, account: str = RUN) -> None:
    books.spend(Demand(account, Rule.TOTAL, Unit.USD, 0, limit), amount)


def error(world: World) -> dict[str, Any]:
    return json.loads(world.down.sent)["error"]


def header(world: World, name: bytes) -> bytes | None:
    assert world.down.head is not None
    lines = dict(line.split(b": ", 1) for line in world.down.head[2].split(b"\r\n") if line)
    return lines.get(name)


def test_without_limits_nothing_is_asked_of_the_books() -> None:
    world, books = limited()
    assert call(world).status == 200
    assert not books.asked


def test_the_worst_case_is_held_and_the_truth_is_charged() -> None:
    world, books = limited(runs=Runs(budget_usd=1))
    done = call(world)
    (demand,) = books.asked[0]
    assert demand.amount >= 100 * 2000  # at least all of its 100 tokens of output, at 2 micro-USD each
    assert done.hold is not None
    assert done.hold.usd == demand.amount
    assert books.spent(RUN) == COST
    assert not books.held


@pytest.mark.parametrize(
    ("scope", "account"),
    [
        ("global", "global|usd|"),
        ("team", "team:default|usd|"),
        ("agent", "agent:tester|usd|"),
        ("run", "run:run-1|usd|"),
        ("model", "model:gpt-4o|usd|"),
        ("upstream", "upstream:openai|usd|"),
    ],
)
def test_every_scope_refuses_by_itself(scope: Any, account: str) -> None:
    world, books = limited(budgets=(Budget(scope=scope, usd=0.0001, per="life"),))
    refused = call(world)
    assert (refused.status, error(world)["code"]) == (402, "insufficient_quota")
    assert scope in error(world)["message"]
    assert books.asked[0][0].account.startswith(account)
    assert header(world, b"x-should-retry") == b"false"
    assert header(world, b"retry-after") is None
    assert not world.upstreams.sent, "nothing was sent"
    assert not books.held
    assert refused.notes["budget"] == "refused"


def test_what_the_upstream_refused_or_never_got_costs_nothing() -> None:
    world, books = limited(runs=Runs(budget_usd=1, max_calls=5))
    world.answer(429, JSON, [b'{"error":{"message":"slow down"}}'])
    drive(serve(ask(CHAT, body()), world.down, world.gateway()))
    assert books.spent(RUN) == 0
    assert books.spent("run:run-1|calls|life") == 1  # it was made, all the same


def test_a_client_may_only_tighten_the_budget_of_its_run() -> None:
    world, books = limited(runs=Runs(budget_usd=1))
    assert call(world, b"", (b"x-tollgate-budget-usd", b"0.0001")).status == 402
    world, books = limited(runs=Runs(budget_usd=1))
    call(world, b"", (b"x-tollgate-budget-usd", b"50"))
    assert books.asked[0][0].limit == NANO_USD
    world, books = limited()
    call(world, path="/budget/2.50/run/mine/v1/chat/completions")
    assert books.asked[0][0].limit == 2_500_000_000


@pytest.mark.parametrize(
    ("path", "headers", "limit"),
    [
        ("/budget/2/run/r/v1/chat/completions", (b"0.5",), 0.5),
        ("/budget/0.5/run/r/v1/chat/completions", (b"2",), 0.5),
        (CHAT, (b"0.5", b"2"), 0.5),
        (CHAT, (b"2", b"", b"0.5"), 0.5),
    ],
)
def test_of_all_that_a_client_says_the_tightest_counts(path: str, headers: tuple[bytes, ...], limit: float) -> None:
    world, books = limited()
    call(world, b"", *((b"X-Tollgate-Budget-Usd", value) for value in headers), path=path)
    assert books.asked[0][0].limit == limit * NANO_USD


@pytest.mark.parametrize("value", [b"", b"much", b"-1", b"1e3", b"inf"])
def test_an_amount_that_is_none_is_refused(value: bytes) -> None:
    world, _ = limited(runs=Runs(budget_usd=1))
    expected = 200 if not value else 400
    assert call(world, b"", (b"x-tollgate-budget-usd", value)).status == expected


def test_a_key_brings_limits_of_its_own_and_may_be_denied_to_set_budgets() -> None:
    key = Key("k1", "nightly", "research", budgets=(KeyBudget(usd=100, per="day"),), may_limit_runs=False)
    world, _books = keyed(key)
    refused = call(world, b"", SECRET)
    assert (refused.status, refused.who.tenant) == (402, "research")
    assert "key nightly" in error(world)["message"]
    world, _books = keyed(Key("k1", may_limit_runs=False))
    assert call(world, b"", SECRET, (b"x-tollgate-budget-usd", b"1")).status == 403


def test_a_person_raises_or_limits_a_run() -> None:
    world, books = limited(runs=Runs(budget_usd=0.0001))
    decide(world, Kind.RAISE, amount=NANO_USD)
    assert call(world).status == 200
    assert books.asked[0][0].limit == NANO_USD
    world, books = limited()
    decide(world, Kind.LIMIT, limits=RunLimits(calls=1))
    assert [call(world).status for _ in range(2)] == [200, 402]


def test_clamp_lowers_the_ceiling_to_what_fits_and_nothing_else() -> None:
    world, books = limited(runs=Runs(budget_usd=0.001, on_exceed="clamp"), spending=Spending(clamp_floor=16))
    fill(books, 500_000, 1_000_000)
    done = call(world, body(max_tokens=5000))
    assert done.status == 200
    sent = json.loads(world.upstreams.sent[0].partition(b"\r\n\r\n")[2])
    assert {**sent, "max_tokens": 5000} == json.loads(body(max_tokens=5000))
    assert 16 <= sent["max_tokens"] < 250
    assert done.notes["budget"] == "clamped"
    assert books.asked[-1][0].amount <= 500_000


def test_clamp_never_goes_below_its_floor() -> None:
    world, books = limited(runs=Runs(budget_usd=0.001, on_exceed="clamp"), spending=Spending(clamp_floor=240))
    fill(books, 900_000, 1_000_000)
    assert call(world, body(max_tokens=5000)).status == 402
    assert not books.held


def test_queue_waits_for_others_to_settle() -> None:
    world, books = limited(runs=Runs(budget_usd=0.001, on_exceed="queue"))
    other = Demand(RUN, Rule.TOTAL, Unit.USD, 900_000, 1_000_000)
    books.book.reserve("other", [other], "me", 1)

    def waited() -> None:
        books.settle("other", Charge(usd=1))
        world.clock += 3 * NANO_USD

    books.on_wait = waited
    done = call(world)
    assert (done.status, done.notes["budget"]) == (200, "queued")
    assert overhead_ns(done, done.ended - done.began) < NANO_USD <= 3 * NANO_USD <= done.waited, "not by the gateway"


@pytest.mark.parametrize(("priority", "number"), [(b"urgent", 0), (b"interactive", 1), (b"batch", 2)])
def test_the_urgent_and_of_those_the_cheap_are_the_first_to_ask_again(priority: bytes, number: int) -> None:
    world, books = limited(runs=Runs(budget_usd=0.001, on_exceed="queue"))
    other = Demand(RUN, Rule.TOTAL, Unit.USD, 900_000, 1_000_000)
    books.book.reserve("other", [other], "me", 1)
    books.on_wait = lambda: books.settle("other", Charge(usd=1))
    done = call(world, b"", (b"x-tollgate-priority", priority))
    assert done.hold is not None
    assert books.ranks == [(number, done.hold.usd)]


def test_queue_gives_up_in_time_and_where_waiting_is_in_vain() -> None:
    world, books = limited(runs=Runs(budget_usd=0.001, on_exceed="queue"), queue_seconds=0.005)
    books.book.reserve("other", [Demand(RUN, Rule.TOTAL, Unit.USD, 900_000, 1_000_000)], "me", 1)
    assert call(world).status == 402
    assert set(books.held) == {"other"}
    world, books = limited(runs=Runs(budget_usd=0.001, on_exceed="queue"))
    fill(books, 999_999, 1_000_000)
    assert call(world).status == 402
    assert "freed" not in world.names()


def test_a_raise_reaches_who_waits() -> None:
    world, books = limited(runs=Runs(budget_usd=0.001, on_exceed="queue"))
    books.book.reserve("other", [Demand(RUN, Rule.TOTAL, Unit.USD, 900_000, 1_000_000)], "me", 1)
    books.on_wait = lambda: decide(world, Kind.RAISE, amount=NANO_USD)
    assert call(world).status == 200


@pytest.mark.parametrize("dollars", [None, 1])
def test_limits_that_people_change_reach_who_waits_and_who_comes(dollars: int | None) -> None:
    tight = Budget(scope="global", usd=0.001, per="life", on_exceed="queue")
    world, books = limited(budgets=(tight,))
    books.book.reserve("other", [Demand("global|usd|life", Rule.TOTAL, Unit.USD, 900_000, 1_000_000)], "me", 1)
    lifted = () if dollars is None else (Budget(scope="global", usd=dollars, per="life"),)
    admitter = world.settings["admission"]

    def relimit(*budgets: Budget) -> None:
        admitter.relimit(Limits(budgets, Runs(), LimitsConfig(), Spending(), UTC))

    books.on_wait = lambda: relimit(*lifted)
    assert call(world).status == 200
    assert set(books.held) == {"other"}
    relimit(Budget(scope="global", usd=0.001, per="life"))
    refused = call(world)
    assert (refused.status, refused.notes["budget"]) == (402, "refused")
    assert refused.notes["budget_account"] == "global|usd|life"


def test_a_gateway_without_limits_gets_some() -> None:
    world, _ = limited()
    admitter = world.settings["admission"]
    assert call(world).hold is None
    assert not admitter.used
    admitter.relimit(Limits((Budget(scope="agent", usd=1),), Runs(), LimitsConfig(), Spending(), UTC))
    assert admitter.used
    held = call(world).hold
    assert held is not None
    assert held.usd > 0


def test_who_waits_does_so_in_the_window_of_the_hour() -> None:
    """A window that ends while a call waits is over for it, too: it holds in the next one."""
    world, books = limited(budgets=(Budget(scope="global", usd=0.001, per="minute", on_exceed="queue"),))
    now = world.gateway().now()
    window = Calendar(UTC).window("minute", now)
    full = Demand(f"global|usd|minute|{window.suffix}", Rule.TOTAL, Unit.USD, 900_000, 1_000_000, window.since)
    books.book.reserve("other", [full], "me", 1)
    clock = [now]
    gateway = structs.replace(world.gateway(), now=lambda: clock[0])
    books.on_wait = lambda: clock.append(clock.pop() + 60 * NANO_USD)
    world.answer(200, JSON, [ANSWER])
    drive(serve(ask(CHAT, body()), world.down, gateway))
    assert world.journal.records[-1].status == 200
    accounts = [demands[0].account for demands in books.asked]
    assert accounts[0] == full.account
    assert accounts[-1] != full.account


def test_nobody_waits_longer_than_its_client_does() -> None:
    """Half of what it says that it waits; where it says nothing that can be read, as long as is configured."""
    for said, seconds in ((b"4", 2.0), (b"0.5", 0.25), (b"soon", 20.0), (b"-1", 20.0), (b"", 20.0), (b"600", 20.0)):
        world, books = limited(runs=Runs(budget_usd=0.001, on_exceed="queue"), queue_seconds=20)
        books.book.reserve("other", [Demand(RUN, Rule.TOTAL, Unit.USD, 900_000, 1_000_000)], "me", 1)
        books.on_wait = lambda world=world: setattr(world, "clock", world.clock + 10**8)  # type: ignore[misc]
        began = world.clock
        assert call(world, b"", (b"x-stainless-timeout", said)).status == 402
        assert seconds <= (world.clock - began) / NANO_USD < seconds + 0.2


def test_a_kill_reaches_who_waits() -> None:
    world, books = limited(runs=Runs(budget_usd=0.001, on_exceed="queue"))
    books.book.reserve("other", [Demand(RUN, Rule.TOTAL, Unit.USD, 900_000, 1_000_000)], "me", 1)
    books.on_wait = lambda: decide(world, Kind.KILL, reason="enough")
    stopped = call(world)
    assert (stopped.status, getattr(stopped.fault, "code", "")) == (402, "run_stopped")
    assert set(books.held) == {"other"}


def test_a_client_that_left_while_it_waited_holds_nothing() -> None:
    world, books = limited(runs=Runs(budget_usd=0.001, on_exceed="queue"))
    books.book.reserve("other", [Demand(RUN, Rule.TOTAL, Unit.USD, 900_000, 1_000_000)], "me", 1)

    def leave() -> None:
        world.down.gone = True

    books.on_wait = leave
    call(world)
    assert world.down.endings == ["abort"]
    assert set(books.held) == {"other"}
    assert not world.upstreams.sent


TAPER = (
    TaperStep(at=0.5, effort="low"),
    TaperStep(at=0.8, model="gpt-4o-mini", max_tokens=50),
    TaperStep(at=0.95, stop=True),
)


@pytest.mark.parametrize(
    ("spent", "seen"),
    [
        (499_999_999, {}),
        (500_000_000, {"reasoning_effort": "low"}),
        (800_000_000, {"reasoning_effort": "low", "model": "gpt-4o-mini", "max_tokens": 50}),
    ],
)
def test_taper_steps_apply_from_exactly_their_share(spent: int, seen: dict[str, Any]) -> None:
    world, books = limited(runs=Runs(budget_usd=1, taper=TAPER))
    fill(books, spent)
    asked = body(reasoning_effort="high")
    done = call(world, asked)
    assert done.status == 200
    assert json.loads(world.upstreams.sent[0].partition(b"\r\n\r\n")[2]) == {**json.loads(asked), **seen}
    assert header(world, b"x-tollgate-taper") == ({0: None, 1: b"0.5"}.get(len(seen), b"0.8"))
    assert done.notes.get("budget") == ("tapered" if seen else None)
    assert not books.held


@pytest.mark.parametrize(("query", "said"), [("", "?model="), ("?model=unknown-1", "prices.models")])
def test_a_session_is_told_what_its_budget_lacks(query: str, said: str) -> None:
    world, _ = limited(runs=Runs(budget_usd=1))
    upgrade = ((b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"))
    request = ask("/v1/responses" + query, b"", *upgrade, method=b"GET")
    drive(serve(request, world.down, world.gateway()))
    done = world.journal.records[-1]
    assert (done.status, getattr(done.fault, "code", "")) == (402, "price_unknown")
    assert said in str(done.fault)


@pytest.mark.parametrize(("spent", "more"), [(800_000_000, {}), (999_800_000, {"on_exceed": "clamp"})])
def test_a_compressed_call_is_made_cheaper_as_others_are(spent: int, more: dict[str, Any]) -> None:
    """It goes on as it was read, for a compressed body cannot be spliced."""
    sent = []
    for coding in ((), ((b"content-encoding", b"gzip"),)):
        steps = TAPER[:-1] if not more else ()
        world, books = limited(runs=Runs(budget_usd=1, taper=steps, **more), spending=Spending(clamp_floor=1))
        fill(books, spent)
        asked = body(reasoning_effort="high")
        assert call(world, gzip.compress(asked) if coding else asked, *coding).status == 200
        head, _, told = world.upstreams.sent[0].partition(b"\r\n\r\n")
        assert b"content-encoding" not in head.lower()
        sent.append(json.loads(told))
    assert sent[0] == sent[1] != json.loads(body(reasoning_effort="high"))


def test_the_last_step_stops() -> None:
    world, books = limited(runs=Runs(budget_usd=1, taper=TAPER))
    fill(books, 950_000_000)
    assert call(world).status == 402
    assert not books.held
    assert books.spent(RUN) == 950_000_000


def test_a_tapered_call_holds_its_lower_cost() -> None:
    world, books = limited(runs=Runs(budget_usd=1, taper=TAPER))
    fill(books, 800_000_000)
    call(world, body(max_tokens=5000))
    first, second = (asked[0].amount for asked in books.asked)
    assert second < first / 20


@pytest.mark.parametrize(
    ("unknown", "status", "held"), [("deny", 402, 0), ("ceiling", 200, 500_000_000), ("allow", 200, 0)]
)
def test_a_price_that_is_unknown_is_never_zero_by_accident(unknown: Any, status: int, held: int) -> None:
    world, books = limited(runs=Runs(budget_usd=1), spending=Spending(unknown_price=unknown, ceiling_usd=0.5))
    world.answer(200, JSON, [ANSWER.replace(b"gpt-4o", b"unknown-1")])
    drive(serve(ask(CHAT, body(model="unknown-1")), world.down, world.gateway()))
    done = world.journal.records[-1]
    assert done.status == status
    if status == 402:
        assert getattr(done.fault, "code", "") == "price_unknown"
        assert not books.asked
    else:
        assert books.asked[0][0].amount == held
        assert books.spent(RUN) == held, "what it cost is unknown: what was held is charged"


def test_rates_wait_a_moment_and_say_how_long() -> None:
    world, _books = limited(limits=LimitsConfig(rates=(Rates(scope="global", rpm=1),)))
    assert [call(world).status for _ in range(2)] == [200, 429]
    wait = header(world, b"retry-after")
    assert wait is not None
    assert 1 <= int(wait) <= 60


def test_the_headers_tell_what_is_left() -> None:
    world, books = limited(runs=Runs(budget_usd=1))
    fill(books, 250_000_000)
    done = call(world)
    assert done.hold is not None
    left = (NANO_USD - 250_000_000 - done.hold.usd) // 1000 / 1e6
    assert header(world, b"x-tollgate-budget-remaining-usd") == f"{left:.6f}".encode()
    assert header(world, b"x-tollgate-run-cost-usd") == b"0.250000"


def test_of_several_budgets_the_one_with_the_least_left_is_told() -> None:
    budgets = [Budget(scope=scope, usd=usd, per="life") for scope, usd in (("global", 2), ("team", 1), ("model", 3))]
    world, _ = limited(budgets=tuple(budgets))
    done = call(world)
    assert done.hold is not None
    left = (NANO_USD - done.hold.usd) // 1000 / 1e6
    assert header(world, b"x-tollgate-budget-remaining-usd") == f"{left:.6f}".encode()


def test_a_soft_budget_holds_what_such_calls_usually_cost() -> None:
    world, books = limited(budgets=(Budget(scope="global", usd=1, soft=True, per="life"),), learn=True)
    for _ in range(30):
        call(world)
    first, last = books.asked[0][0].amount, books.asked[-1][0].amount
    assert first > 100_000 > COST * 2 > last >= COST


def test_the_store_being_away_is_an_error_of_the_gateway() -> None:
    world, books = limited(runs=Runs(budget_usd=1))

    async def away(op: str, demands: Any) -> Any:
        raise BudgetsAway("the store is away")

    books.reserve = away  # type: ignore[method-assign]
    assert call(world).status == 503
    assert not world.upstreams.sent


class BudgetsAway(GatewayError):
    code, status = "budgets_unavailable", 503
