"""A tool behind the gate, through the whole pipeline on doubles: same keys, same budgets, same record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.call import Call
from gateway.config.schema import Budget, Limits, Rates, Runs, TaperStep
from gateway.dialects.tool_paths import Door
from gateway.errors import UpstreamReset, UpstreamTimeout
from gateway.journal.convert import outcome_of
from gateway.key import Key
from gateway.pipeline import serve
from gateway.policy.controls import Scope, Standing
from gateway.testing.doubles import World, ask, drive
from gateway.testing.memory_budgets import MemoryBudgets, limit
from gateway.tool import Price, Terms

JSON = ((b"Content-Type", b"application/json"),)
PRICE = Price(5 * 10**9)  # half a cent
SEARCH = "/tools/search/find?q=a"
AUTH = ((b"authorization", b"Bearer tool-key"),)
SECRET = (b"authorization", b"Bearer tg-k1-secret")


class OneKey:
    """`ports.Keys`: whoever comes has this one."""

    required = True

    def __init__(self, key: Key) -> None:
        self.key = key

    def find(self, presented: bytes) -> Key | None:
        return self.key


def having(price: Price = PRICE, *, resend: bool = False, key: Key | None = None, **spec: Any) -> World:
    world = World()
    world.tool(Terms("search", price, resend=resend), Door("/v1"), **{"auth": AUTH, **spec})
    if key is not None:
        world.settings["keys"] = OneKey(key)
    return world


def call(world: World, *headers: tuple[bytes, bytes], path: str = SEARCH, method: bytes = b"GET") -> Call:
    world.down.sent = b""
    drive(serve(ask(path, b"", *headers, method=method), world.down, world.gateway()))
    return world.journal.records[-1]


def said(world: World) -> dict[str, str]:
    assert world.down.head is not None
    return dict(line.split(": ", 1) for line in world.down.head[2].decode().split("\r\n") if line)


def code(world: World) -> str:
    error = json.loads(world.down.sent)["error"]
    return str(error.get("tollgate_code") or error["code"])


def test_a_tool_is_called_with_its_own_key_and_paid_for() -> None:
    world = having()
    world.answer(200, JSON, [b'{"hits":', b"[]}"])
    made = call(world, (b"Authorization", b"Bearer client"), (b"X-Http-Method-Override", b"DELETE"), (b"Cookie", b"c"))
    head = world.upstreams.sent[0].decode()
    assert head.startswith("GET /v1/find?q=a HTTP/1.1\r\nHost: up.example\r\n")
    assert "Bearer client" not in head
    assert "Override" not in head
    assert head.count("authorization: Bearer tool-key") == 1
    assert world.down.sent == b'{"hits":[]}'
    assert said(world)["x-tollgate-cost-usd"] == "0.005000000000"
    assert (made.money.total, made.money.components, made.money.status) == (5 * 10**9, {"tools": 5 * 10**9}, "priced")
    (tool,) = made.tools
    assert (tool.name, tool.server, tool.is_error, tool.exact, tool.cost) == (
        "search",
        "search",
        False,
        True,
        5 * 10**9,
    )
    assert made.route.operation == "execute_tool"
    assert outcome_of(made) == "ok"


@pytest.mark.parametrize(
    ("spec", "passes"),
    [
        ({"auth": ((b"authorization", b"Bearer tool-key"),)}, False),
        ({"auth": (), "headers": ((b"X-Key", b"tool-key"),)}, False),
        ({"auth": ()}, True),
    ],
)
def test_a_tool_with_a_key_of_its_own_has_no_cookies_of_clients(spec: dict[str, Any], passes: bool) -> None:
    world = having(**spec)
    world.answer(200, (*JSON, (b"Set-Cookie", b"sid=of-the-operator"), (b"X-Own", b"1")), [b"{}"])
    call(world, (b"Cookie", b"sid=of-another-tool"), (b"X-Other", b"1"))
    assert (b"sid=of-another-tool" in world.upstreams.sent[0], "Set-Cookie" in said(world)) == (passes, passes)
    assert b"X-Other: 1" in world.upstreams.sent[0]
    assert (said(world)["X-Own"], world.down.sent) == ("1", b"{}")


def test_any_body_comes_back_as_it_is() -> None:
    world = having()
    body = b"<html>\xff\x00 not json</html>"
    world.answer(200, ((b"Content-Type", b"text/html"), (b"X-Own", b"1")), [body])
    made = call(world)
    assert (world.down.sent, made.status, said(world)["X-Own"]) == (body, 200, "1")


def test_redirects_are_not_followed() -> None:
    world = having()
    world.answer(302, ((b"Location", b"http://169.254.169.254/"), (b"Content-Length", b"0")), [])
    made = call(world)
    assert (made.status, len(world.upstreams.sent), said(world)["Location"]) == (302, 1, "http://169.254.169.254/")
    assert made.money.total == 0


@pytest.mark.parametrize(("status", "cost", "failed"), [(200, 5 * 10**9, False), (404, 0, True), (503, 0, True)])
def test_errors_of_the_tool_are_failures_and_cost_nothing(status: int, cost: int, failed: bool) -> None:
    world = having()
    world.answer(status, JSON, [b'{"error":{"message":"no"}}'])
    made = call(world)
    assert (made.status, made.money.total, made.tools[0].is_error) == (status, cost, failed)


@pytest.mark.parametrize(
    ("fault", "sent"), [(UpstreamTimeout(code="upstream_total_timeout"), True), (UpstreamReset(), True)]
)
def test_what_became_of_it_is_not_known_where_no_answer_came(fault: Any, sent: bool) -> None:
    world = having()
    world.upstreams.answers.append(fault)
    made = call(world)
    assert made.money.total is None
    assert (made.tools[0].is_error, made.tools[0].exact, made.tools[0].cost) == (True, False, None)
    assert outcome_of(made) == "failed"


def test_refused_calls_are_no_executions() -> None:
    world = having()
    made = call(world, path="/tools/search/find", method=b"PUT")
    assert (made.status, made.tools, made.money.total, outcome_of(made)) == (405, [], 0, "refused")


@pytest.mark.parametrize(
    ("method", "resend", "tries"), [(b"POST", False, 1), (b"POST", True, 2), (b"GET", False, 2), (b"PATCH", False, 1)]
)
def test_only_what_changes_nothing_is_sent_again(method: bytes, resend: bool, tries: int) -> None:
    world = World()
    world.tool(Terms("search", PRICE, resend=resend), Door("/v1", ("GET", "POST", "PATCH")), auth=AUTH)
    world.upstreams.kept = True
    world.upstreams.answers.append(UpstreamReset())
    world.answer(200, JSON, [b"{}"])
    call(world, method=method)
    assert len(world.upstreams.sent) == tries


# -- units ----------------------------------------------------------------------------------------------------------


def test_units_in_a_header() -> None:
    world = having(Price(10**9, header=b"x-credits", most=3))
    world.answer(200, (*JSON, (b"X-Credits", b"2")), [b"{}"])
    assert call(world).money.total == 2 * 10**9


def test_units_in_the_answer() -> None:
    world = having(Price(10**9, field=("usage", "credits"), most=3))
    world.answer(200, JSON, [b'{"usage":{"cre', b'dits":1.5}}'])
    assert call(world).money.total == 15 * 10**8


def test_units_that_are_not_stated_make_the_cost_unknown() -> None:
    world = having(Price(10**9, field=("usage", "credits"), most=3))
    books = limit(world, budgets=(Budget(scope="global", usd=1, per="life"),))
    world.answer(200, JSON, [b"{}"])
    made = call(world)
    assert (made.money.total, made.money.status) == (None, "no_usage")
    assert spent(books) == 3 * 10**6, "what was held is charged"


# -- budgets --------------------------------------------------------------------------------------------------------


def spent(books: MemoryBudgets) -> int:
    return books.spent("global|usd|life")


def test_a_call_holds_its_price_and_is_charged_what_it_came_to() -> None:
    world = having(Price(10**9, header=b"x-credits", most=3))
    books = limit(world, budgets=(Budget(scope="global", usd=0.003, per="life"),))
    world.answer(200, (*JSON, (b"X-Credits", b"2")), [b"{}"])
    made = call(world)
    assert made.hold is not None
    assert made.hold.usd == 3 * 10**6
    assert spent(books) == 2 * 10**6
    made = call(world)
    assert (made.status, code(world), len(world.upstreams.sent)) == (402, "budget_exceeded", 1)


def test_a_budget_in_tokens_is_nothing_to_a_tool() -> None:
    world = having()
    limit(world, budgets=(Budget(scope="global", tokens=1, per="life"),))
    world.answer(200, JSON, [b"{}"])
    assert call(world).status == 200


def test_a_free_tool_counts_among_the_tools_and_calls_of_its_run() -> None:
    world = having(Price())
    limit(world, runs=Runs(max_tools=1))
    world.answer(200, JSON, [b"{}"])
    assert call(world).status == 200
    assert call(world).status == 402
    assert code(world) == "budget_exceeded"


def test_a_tool_is_no_step_of_its_run() -> None:
    world = having()
    limit(world, runs=Runs(max_steps=1))
    for _ in range(3):
        world.answer(200, JSON, [b"{}"])
        assert call(world).status == 200


def test_a_tool_can_have_limits_of_its_own() -> None:
    world = having()
    limit(world, limits=Limits(rates=(Rates(scope="upstream", match="tools/*", rpm=1, burst=1),)))
    world.answer(200, JSON, [b"{}"])
    assert call(world).status == 200
    assert (call(world).status, code(world)) == (429, "limit_reached")


def test_a_taper_that_lowers_models_leaves_tools_alone_and_one_that_stops_does_not() -> None:
    for step, status in (
        (TaperStep(at=0, model="claude", effort="low", max_tokens=5), 200),
        (TaperStep(at=0, stop=True), 402),
    ):
        world = having()
        world.settings["aliases"] = {"claude": ("claude-3", "anthropic")}
        limit(world, budgets=(Budget(scope="global", usd=1, per="life", taper=(step,)),))
        world.answer(200, JSON, [b"{}"])
        assert call(world).status == status


def test_a_stopped_run_reaches_its_tools() -> None:
    world = having()
    world.controls.take([Standing(Scope.RUN, "run-1", 1, killed_at=1, reason="it loops", who="ops")])
    made = call(world)
    assert (made.status, code(world), world.upstreams.sent) == (402, "run_stopped", [])


# -- keys -----------------------------------------------------------------------------------------------------------


def key(**rights: Any) -> Key:
    return Key(id="k1", name="ci", **rights)


@pytest.mark.parametrize(
    ("rights", "status", "refusal"),
    [
        ({}, 200, ""),
        ({"models": ("gpt-*",)}, 200, ""),
        ({"tools": ("search",)}, 200, ""),
        ({"tools": ("sea*", "x")}, 200, ""),
        ({"tools": ("Search",)}, 403, "tool_not_allowed"),
        ({"tools": ()}, 403, "tool_not_allowed"),
        ({"upstreams": ("tools/*",)}, 200, ""),
        ({"upstreams": ("openai",)}, 403, "upstream_not_allowed"),
        ({"operations": ("chat",)}, 403, "operation_not_allowed"),
        ({"operations": ("execute_tool",)}, 200, ""),
    ],
)
def test_what_a_key_allows(rights: dict[str, Any], status: int, refusal: str) -> None:
    world = having(key=key(**rights))
    world.answer(200, JSON, [b"{}"])
    made = call(world, SECRET)
    assert made.status == status
    if refusal:
        assert code(world) == refusal
        assert not world.upstreams.sent


def test_a_key_of_this_gateway_stays_here() -> None:
    world = having(key=key(), auth=())
    world.answer(200, JSON, [b"{}"])
    assert call(world, SECRET, (b"X-Api-Key", b"other")).status == 200
    sent = world.upstreams.sent[0]
    assert b"tg-k1" not in sent
    assert b"other" not in sent


def test_a_parameter_named_key_is_the_tools_own_unless_it_is_ours() -> None:
    world = having(key=key())
    world.answer(200, JSON, [b"{}"])
    call(world, SECRET, path="/tools/search/get?key=abc&x=1")
    assert world.upstreams.sent[0].startswith(b"GET /v1/get?key=abc&x=1 ")
    world.answer(200, JSON, [b"{}"])
    call(world, path="/tools/search/get?key=tg-k1-secret&x=1")
    assert world.upstreams.sent[1].startswith(b"GET /v1/get?x=1 ")
