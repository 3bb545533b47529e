"""Where a call goes: rules, hard filters, stickiness, and each way to choose."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from msgspec import Struct, structs

from gateway.config.schema_routing import CanaryTo, Cascade, Learn, Route, RouteTo
from gateway.policy.canary import State, canary_arm
from gateway.policy.pace import HALF_LIFE, Paces
from gateway.policy.routing import Learned, Plan, decide
from gateway.policy.routing_rules import Asking, Facts, Rules, Target, within

FACTS = Facts(model="fast", sent="fast", route="/v1/chat/completions", upstream="openai", unit="t|run", free=False)
HOUR = 3600 * 10**9


class World(Struct, frozen=True):
    """Implements policy.routing.World by what it is given."""

    usable: Callable[[str], bool]
    price: Callable[[Target, Asking, bool], int | None]
    pace: Callable[[Target, int], float]
    draw: Callable[[], float]
    kept: Callable[[float], str]
    trials: Mapping[str, State]
    shut: Callable[[Target], bool] | None = None
    room: Callable[[Target, Asking], float] = lambda target, facts: 1.0
    kin: Callable[[str], bool] = lambda upstream: True
    sayable: Callable[[Target], bool] = lambda target: True
    fluent: Callable[[str], bool] = lambda upstream: False
    marked: bool = False
    learned: Learned | None = None


def plan(rules: Sequence[Route], facts: Facts, world: World) -> Plan | None:
    return decide(Rules(rules).way(facts, world), facts, world)


def rule_of(rules: Sequence[Route], facts: Facts) -> int:
    found = plan(rules, facts, world())
    return -1 if found is None else found.rule


def world(**given: Any) -> World:
    known: dict[str, Any] = {
        "usable": lambda upstream: True,
        "price": lambda target, facts, warm: None,
        "pace": lambda target, now: 0.0,
        "draw": lambda: 0.0,
        "kept": lambda seconds: "",
        "trials": {},
    }
    return World(**{**known, **given})


def names(found: Plan | None) -> list[str]:
    assert found is not None
    return [target.name for target in found.targets]


def facts(**given: Any) -> Facts:
    return structs.replace(FACTS, **given)


# -- rules


@pytest.mark.parametrize(
    ("rule", "yes", "no"),
    [
        ({"model": "fa*"}, {}, {"model": "slow", "sent": "slow"}),
        ({"model": "real"}, {"sent": "real"}, {"sent": "other"}),
        ({"route": "/v1/chat/*"}, {}, {"route": "/v1/messages"}),
        ({"upstream": "openai"}, {}, {"upstream": "local"}),
        ({"agent": "coder"}, {"agent": "coder"}, {"agent": "other"}),
        ({"agent_version": "2.*"}, {"agent_version": "2.1"}, {"agent_version": "1.9"}),
        ({"key": "acme"}, {"key": ("k1", "acme")}, {"key": ("k1", "other")}),
        ({"key": "k1"}, {"key": ("k1", "acme")}, {"key": ("", "")}),
        ({"team": "red"}, {"team": "red"}, {"team": ""}),
        ({"request_class": "subagent"}, {"request_class": "subagent"}, {"request_class": ""}),
        ({"min_tokens": 100}, {"size": 400}, {"size": 399}),
        ({"max_tokens": 100}, {"size": 403}, {"size": 404}),
        ({"tools": True}, {"needs": frozenset({"tools"})}, {}),
        ({"tools": False}, {}, {"needs": frozenset({"tools"})}),
        ({"headers": {"X-Tier": "b*"}}, {"names": {b"x-tier": b"batch"}}, {"names": {b"x-tier": b"live"}}),
        ({"headers": {"x-tier": "*"}}, {"names": {b"x-tier": b""}}, {"names": {}}),
        ({"hours": "22:00-06:00"}, {"now": 23 * HOUR}, {"now": 6 * HOUR}),
    ],
)
def test_every_pattern_decides(rule: dict[str, Any], yes: dict[str, Any], no: dict[str, Any]) -> None:
    rules = [Route(to=("m",), **rule)]
    assert rule_of(rules, facts(**yes)) == 0
    assert rule_of(rules, facts(**no)) == -1


def test_the_first_rule_that_matches_counts() -> None:
    rules = [Route(to=("a",), agent="x"), Route(to=("b",)), Route(to=("c",))]
    assert names(plan(rules, FACTS, world())) == ["openai/b"]
    assert plan([Route(to=("a",), agent="x")], FACTS, world()) is None


def test_hours_may_go_over_midnight() -> None:
    assert within("09:30-17:00", 9 * HOUR + HOUR // 2)
    assert not within("09:30-17:00", 17 * HOUR)
    assert within("22:00-06:00", 24 * HOUR + HOUR)
    assert not within("22:00-06:00", 12 * HOUR)


def test_what_a_target_does_not_name_stays() -> None:
    rule = Route(to=(RouteTo(upstream="local"), RouteTo(model="m")))
    assert names(plan([rule], facts(sent="real"), world())) == ["local/real", "openai/m"]


# -- hard filters


def test_a_target_that_may_not_be_used_is_none() -> None:
    rule = Route(to=(RouteTo(upstream="other"), "m"))
    assert names(plan([rule], FACTS, world(usable=lambda upstream: upstream != "other"))) == ["openai/m"]
    assert plan([rule], FACTS, world(usable=lambda upstream: False)) is None


@pytest.mark.parametrize(
    ("first", "given"),
    [
        (RouteTo(model="a", lacks=("tools",)), {"needs": frozenset({"tools"})}),
        (RouteTo(model="a", lacks=("images",)), {"needs": frozenset({"images"})}),
        (RouteTo(model="a", context=1000), {"size": 3000, "answer": 400}),
        (RouteTo(model="gpt-4"), {"size": 4 * 40_000}),  # known to take 32,768
    ],
)
def test_a_call_goes_where_it_fits(first: RouteTo, given: dict[str, Any]) -> None:
    rule = Route(to=(first, "b"))
    assert names(plan([rule], FACTS, world()))[0] == f"openai/{first.model}"
    assert names(plan([rule], facts(**given), world())) == ["openai/b"]
    assert names(plan([Route(to=(first,))], facts(**given), world())) == [
        f"openai/{first.model}"
    ]  # better than nowhere


# -- by weight


def test_weights_hold_and_runs_stay() -> None:
    rule = Route(to=(RouteTo(model="a", weight=3), RouteTo(model="b", weight=1)), by="weight")
    first = [names(plan([rule], facts(unit=f"r{n}"), world()))[0] for n in range(8000)]
    share = first.count("openai/a") / 8000
    assert abs(share - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 8000)
    assert first == [names(plan([rule], facts(unit=f"r{n}"), world()))[0] for n in range(8000)]


def test_a_target_that_goes_moves_its_own_runs_only() -> None:
    three = Route(to=("a", "b", "c"), by="weight")
    two = Route(to=("a", "b"), by="weight")
    for n in range(500):
        before = names(plan([three], facts(unit=f"r{n}"), world()))
        after = names(plan([two], facts(unit=f"r{n}"), world()))
        assert [name for name in before if name != "openai/c"] == after


def test_without_stickiness_each_call_is_drawn() -> None:
    rule = Route(to=("a", "b"), by="weight", sticky=False)
    draw = random.Random(1)
    first = [names(plan([rule], FACTS, world(draw=draw.random)))[0] for _ in range(2000)]
    assert abs(first.count("openai/a") / 2000 - 0.5) < 0.05


# -- priority, latency, cost


def test_by_priority_as_listed_and_all_are_named() -> None:
    assert names(plan([Route(to=("a", "b", "c"))], FACTS, world())) == ["openai/a", "openai/b", "openai/c"]


def test_by_latency_the_quicker_of_two() -> None:
    pace = {"openai/a": 900.0, "openai/b": 100.0, "openai/c": 500.0}
    rule = Route(to=("a", "b", "c"), by="latency")
    draw = random.Random(1)
    seen = world(pace=lambda target, now: pace[target.name], draw=draw.random)
    first = [names(plan([rule], FACTS, seen))[0] for _ in range(3000)]
    assert "openai/a" not in first  # the slowest of three never wins a pair
    assert abs(first.count("openai/b") / 3000 - 2 / 3) < 0.05
    found = plan([rule], FACTS, seen)
    assert sorted(names(found)) == sorted(pace)


def test_by_cost_the_cheapest_for_such_a_call() -> None:
    price = {"openai/a": 30, "openai/b": 10, "openai/c": None}
    rule = Route(to=("a", "c", "b"), by="cost")
    seen = world(price=lambda target, facts, warm: price[target.name])
    found = plan([rule], FACTS, seen)
    assert names(found) == ["openai/b", "openai/a", "openai/c"]
    assert found is not None
    assert found.why == "cost"


# -- what is left alone


@pytest.mark.parametrize("by", ["weight", "priority", "latency", "cost"])
@pytest.mark.parametrize("sticky", [True, False])
def test_what_is_left_alone_stands_behind_the_others(by: Any, sticky: bool) -> None:
    rule = Route(to=("a", "b", "c"), by=by, sticky=sticky)
    draw = random.Random(1)
    price = {"openai/a": 1, "openai/b": 2, "openai/c": 3}
    for n in range(200):
        seen = world(
            shut=lambda target: target.name == "openai/a",
            draw=draw.random,
            price=lambda target, facts, warm: price[target.name],
        )
        found = names(plan([rule], facts(unit=f"r{n}"), seen))
        assert sorted(found) == sorted(price)
        assert found[-1] == "openai/a"


def test_where_all_are_left_alone_the_order_is_as_ever() -> None:
    found = plan([Route(to=("a", "b"))], FACTS, world(shut=lambda target: True))
    assert found is not None
    assert (names(found), found.why) == (["openai/a", "openai/b"], "priority")


def test_a_run_leaves_what_is_left_alone_and_comes_back() -> None:
    rule = Route(to=("a", "b", "c"), by="cost")
    price = {"openai/a": 30, "openai/b": 40, "openai/c": 20}
    given: dict[str, Any] = {
        "kept": lambda seconds: "openai/b",
        "price": lambda target, facts, warm: price[target.name] // (4 if warm else 1),
    }
    found = plan([rule], FACTS, world(**given, shut=lambda target: target.name == "openai/b"))
    assert found is not None
    assert (names(found), found.why, found.returns) == (["openai/c", "openai/a", "openai/b"], "breaker", True)
    found = plan([rule], FACTS, world(**given, shut=lambda target: target.name == "openai/c"))
    assert found is not None
    assert (names(found), found.why, found.returns) == (["openai/b", "openai/a", "openai/c"], "sticky", False)


def test_by_weight_only_the_runs_of_the_target_that_is_left_alone_move() -> None:
    rule = Route(to=("a", "b", "c"), by="weight")
    for n in range(300):
        usual = names(plan([rule], facts(unit=f"r{n}"), world()))
        now = names(plan([rule], facts(unit=f"r{n}"), world(shut=lambda target: target.name == "openai/a")))
        assert now[0] == (usual[1] if usual[0] == "openai/a" else usual[0])


def test_a_canary_that_is_left_alone_is_none_for_either_arm() -> None:
    rule = Route(to=("base",), canary=CanaryTo(id="new", to="fresh", share=0.5))
    for n in range(50):
        found = plan([rule], facts(unit=f"r{n}"), world(shut=lambda target: target.model == "fresh"))
        assert found is not None
        assert (names(found), found.canary, found.arm) == (["openai/base"], "", "")


# -- what an API can say


def test_what_cannot_be_said_is_passed_over_and_asked_no_further_than_needed() -> None:
    asked: list[str] = []

    def sayable(target: Any) -> bool:
        asked.append(target.model)
        return bool(target.model != "a")

    assert names(plan([Route(to=("a", "b", "c"))], FACTS, world(sayable=sayable))) == ["openai/b", "openai/c"]
    assert asked == ["a", "b"]
    none = plan([Route(to=("a", "b"))], FACTS, world(sayable=lambda target: False))
    assert names(none) == ["openai/a", "openai/b"], "its refusal names the field"


def test_a_model_that_is_not_named_stays_with_its_api() -> None:
    rule = Route(to=(RouteTo(upstream="claude"), RouteTo(upstream="twin"), RouteTo(model="m", upstream="claude")))
    found = plan([rule], FACTS, world(kin=lambda upstream: upstream != "claude"))
    assert names(found) == ["twin/fast", "claude/m"]


def test_by_headroom_the_one_that_has_most_left_and_none_last() -> None:
    room = {"openai/a": 0.0, "openai/b": 0.3, "openai/c": 0.9, "openai/d": 0.3}
    seen = world(room=lambda target, facts: room[target.name])
    found = plan([Route(to=("a", "b", "c", "d"), by="headroom")], FACTS, seen)
    assert found is not None
    assert (names(found), found.why) == (["openai/c", "openai/b", "openai/d", "openai/a"], "headroom")


@pytest.mark.parametrize(("left", "first"), [(0.01, "openai/b"), (0.0, "openai/a")])
def test_by_headroom_a_run_leaves_a_target_that_has_none(left: float, first: str) -> None:
    room = {"openai/a": 0.5, "openai/b": left}
    seen = world(room=lambda target, facts: room[target.name], kept=lambda seconds: "openai/b")
    assert names(plan([Route(to=("a", "b"), by="headroom")], FACTS, seen))[0] == first


# -- stickiness


def test_a_run_stays_while_it_is_warm_but_the_first_step_is_free() -> None:
    rule = Route(to=("a", "b"), warm=60)
    asked: list[float] = []

    def kept(seconds: float) -> str:
        asked.append(seconds)
        return "openai/b"

    found = plan([rule], FACTS, world(kept=kept))
    assert found is not None
    assert (names(found), found.why) == (["openai/b", "openai/a"], "sticky")
    assert asked == [60]
    assert names(plan([rule], facts(free=True), world(kept=kept)))[0] == "openai/a"
    assert names(plan([rule], FACTS, world(kept=lambda seconds: "openai/gone")))[0] == "openai/a"
    loose = structs.replace(rule, sticky=False)
    assert names(plan([loose], FACTS, world(kept=kept)))[0] == "openai/a"


@pytest.mark.parametrize(("elsewhere", "why"), [(40, "cost"), (60, "sticky")])
def test_by_cost_a_run_moves_only_where_it_saves_more_than_its_cache(elsewhere: int, why: str) -> None:
    rule = Route(to=("dear", "cheap"), by="cost")

    def price(target: Any, facts: Facts, warm: bool) -> int:
        return (50 if warm else 100) if target.model == "dear" else elsewhere

    found = plan([rule], FACTS, world(price=price, kept=lambda seconds: "openai/dear"))
    assert found is not None
    assert found.why == why


# -- canaries


def canaries(trials: dict[str, State], runs: int = 4000) -> list[Plan]:
    rule = Route(to=("base",), canary=CanaryTo(id="new", to="fresh", share=0.2))
    found = [plan([rule], facts(unit=f"r{n}"), world(trials=trials)) for n in range(runs)]
    return [one for one in found if one is not None]


def test_a_canary_gets_its_share_and_all_are_watched() -> None:
    found = canaries({})
    arms = [one.arm == "canary" for one in found]
    assert arms == [canary_arm("new", f"r{n}", 0.2) for n in range(4000)]
    assert {one.canary for one in found} == {"new"}
    for one in found:
        assert names(one)[0] == ("openai/fresh" if one.arm == "canary" else "openai/base")
    behind = next(one for one in found if one.arm == "canary")
    assert names(behind) == ["openai/fresh", "openai/base"]  # what it replaces stands behind it


def test_a_canary_that_ended_is_no_longer_watched() -> None:
    assert {names(one)[0] for one in canaries({"new": State.ROLLED_BACK}, 100)} == {"openai/base"}
    promoted = canaries({"new": State.PROMOTED}, 100)
    assert {names(one)[0] for one in promoted} == {"openai/fresh"}
    assert {one.canary for one in promoted} == {""}


def policies(trials: dict[str, State], *, marked: bool = True) -> list[Plan]:
    rule = Route(to=("base", "spare"), canary=CanaryTo(id="new", breakpoints=True, share=0.2))
    found = [plan([rule], facts(unit=f"r{n}"), world(trials=trials, marked=marked)) for n in range(1000)]
    return [one for one in found if one is not None]


def test_a_canary_of_a_prompt_cache_policy_changes_no_target() -> None:
    found = policies({})
    assert [one.arm == "canary" for one in found] == [canary_arm("new", f"r{n}", 0.2) for n in range(1000)]
    assert {(*names(one), one.why, one.canary) for one in found} == {("openai/base", "openai/spare", "priority", "new")}
    assert {one.breakpoints for one in found} == {True}


def test_a_policy_that_ended_is_that_of_all_runs_or_of_none() -> None:
    assert {(one.arm, one.canary) for one in policies({"new": State.PROMOTED})} == {("canary", "")}
    assert {(one.arm, one.canary, one.breakpoints) for one in policies({"new": State.ROLLED_BACK})} == {("", "", None)}


def test_a_policy_is_not_tried_where_an_api_caches_by_itself() -> None:
    assert {(one.arm, one.canary) for one in policies({}, marked=False)} == {("", "")}


def test_a_canary_that_may_not_be_used_is_none() -> None:
    rule = Route(to=("base",), canary=CanaryTo(id="new", to=RouteTo(upstream="far"), share=0.5))
    for n in range(50):
        found = plan([rule], facts(unit=f"r{n}"), world(usable=lambda upstream: upstream != "far"))
        assert names(found) == ["openai/base"]


# -- what the first byte took


def test_a_pace_follows_and_a_slow_target_is_asked_again() -> None:
    paces = Paces()
    assert paces.expect("a", 0) == 0
    paces.learn("a", 1000, now=0)
    assert paces.expect("a", 0) == 1000
    assert paces.expect("a", HALF_LIFE) == 500
    paces.learn("a", 2000, now=HALF_LIFE)
    assert paces.expect("a", HALF_LIFE) == 1200


def test_rules_know_whether_images_matter() -> None:
    assert not Rules([Route(to=("a",))]).look_for_images
    assert Rules([Route(to=(RouteTo(model="a", lacks=("images",)),))]).look_for_images


# -- learned


LEARNS = Route(to=("dear", "cheap"), by="learned", learn=Learn(id="s"))


def taught(*places: int, why: str = "learned") -> Any:
    """A world that chooses in this order, and how it was asked."""
    asked: list[tuple[str, tuple[str, ...], bool]] = []

    def learned(id: str, arms: Any, free: bool) -> tuple[Any, str]:
        asked.append((id, tuple(arms), free))
        return places, why

    return learned, asked


def test_what_was_learned_decides_for_those_that_are_free() -> None:
    learned, asked = taught(1, 0)
    found = plan([LEARNS], facts(free=True), world(learned=learned, kept=lambda seconds: "openai/dear"))
    assert (names(found), found and found.why) == (["openai/cheap", "openai/dear"], "learned")
    assert asked == [("s", ("dear", "cheap"), True)]
    nobody = plan([LEARNS], facts(free=True), world())
    assert (names(nobody), nobody and nobody.why) == (["openai/dear", "openai/cheap"], "first")


@pytest.mark.parametrize(
    ("chosen", "warm", "cold", "goes", "why"),
    [
        (1, 100, 50, "openai/cheap", "learned"),  # it saves more than the cache is worth
        (1, 40, 50, "openai/dear", "sticky"),
        (0, 100, 50, "openai/dear", "sticky"),  # the better one is where it is
        (1, None, 50, "openai/dear", "sticky"),  # nobody knows
    ],
)
def test_a_run_moves_where_that_saves_more_than_its_cache(
    chosen: int, warm: int | None, cold: int, goes: str, why: str
) -> None:
    learned, asked = taught(chosen, 1 - chosen)
    here = world(
        learned=learned,
        kept=lambda seconds: "openai/dear",
        price=lambda target, facts, cached: warm if cached else cold,
    )
    found = plan([LEARNS], FACTS, here)
    assert (names(found)[0], found and found.why) == (goes, why)
    assert {free for _, _, free in asked} <= {False}  # no chances are taken with a run under way


def test_what_is_left_alone_is_not_chosen_by_what_was_learned() -> None:
    learned, asked = taught(0)
    shut = lambda target: target.model == "dear"  # noqa: E731
    found = plan([LEARNS], facts(free=True), world(learned=learned, shut=shut))
    assert (names(found), found and found.why) == (["openai/cheap", "openai/dear"], "learned")
    assert asked == [("s", ("cheap",), True)]


# -- cascades


@pytest.mark.parametrize(
    ("rule", "targets", "rungs"),
    [
        ({}, ["a", "b", "c"], ["a", "b", "c"]),
        ({"by": "cost"}, ["b", "a", "c"], ["b", "a", "c"]),  # what has no price counts as the dearest
        ({"by": "learned", "learn": Learn(id="s")}, ["a", "b", "c"], ["b", "a", "c"]),
        ({"to": ("a", RouteTo(model="b", lacks=("json",)), "c")}, ["a", "c"], ["a", "c"]),
        ({"cascade": None}, ["a", "b", "c"], []),
    ],
)
def test_a_cascade_rises_from_cheap_to_dear_wherever_it_begins(
    rule: dict[str, Any], targets: list[str], rungs: list[str]
) -> None:
    prices = {"a": 5, "b": 1}
    known = world(price=lambda target, facts, warm: prices.get(target.model))
    rules = [Route(**{"to": ("a", "b", "c"), "cascade": Cascade(), **rule})]
    found = plan(rules, facts(needs=frozenset({"json"})), known)
    assert found is not None
    assert [target.model for target in found.targets] == targets
    assert [target.model for target in found.rungs] == rungs


def test_a_run_that_stays_with_a_dear_target_has_nowhere_cheaper_to_rise_to() -> None:
    known = world(kept=lambda seconds: "openai/b")
    found = plan([Route(to=("a", "b"), cascade=Cascade())], FACTS, known)
    assert found is not None
    assert (names(found), [target.model for target in found.rungs]) == (["openai/b", "openai/a"], ["a", "b"])
