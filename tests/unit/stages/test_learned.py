"""A call of a rule that learns: what is chosen, noted and recorded of it, and what is held against its answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.call import Answer, Attempt, Call, Request, Who
from gateway.config.schema_routing import CanaryTo, Learn, Route, RouteTo
from gateway.dialects.items import read_item
from gateway.key import Key
from gateway.policy.pace import Paces
from gateway.policy.routing_rules import Rules
from gateway.policy.selection import Model
from gateway.policy.selection_features import Features, Situation, features
from gateway.policy.selection_fit import Line, Weights
from gateway.policy.selection_trust import Expected
from gateway.policy.selection_wire import decode
from gateway.stages.arrive import arrive, new_call
from gateway.stages.attempt import spliced
from gateway.stages.learned import LearnedChoice
from gateway.stages.route import Router
from gateway.testing.doubles import World, ask

CHAT = "/v1/chat/completions"
TEXT = "Please name the capital of France."
ARMS = ("dear", "cheap")


def known(weight: float = 0.0, arms: tuple[str, ...] = ARMS, labels: float = 600) -> Model:
    """Expects 0.9 of the first and 0.8 of the others, whatever is asked."""
    lines = tuple([Line(0.9 if not at else 0.8) for at in range(len(arms))])
    expected = Expected(lines, tuple([Weights() for _ in arms]))
    costs = tuple([1.0 if not at else 0.1 for at in range(len(arms))])
    return Model(arms, costs, expected, weight, labels, tuple([labels / 2] * len(arms)))


def world(*rules: Route, sent: list[Request] | None = None, **models: Model) -> World:
    made, parsed = World(), Rules(rules)
    taken: list[Request] = [] if sent is None else sent

    def shadow(request: Request) -> bool:
        taken.append(request)
        return True

    choice = LearnedChoice(parsed.terms, lambda: models, read_item, shadow)
    made.settings = {"router": Router(parsed, dict, Paces(), learned=choice)}
    return made


def rule(**more: Any) -> Route:
    learn = more.pop("learn", None) or Learn(id="s", explore=0)
    return Route(**{"to": ARMS, "by": "learned", "learn": learn, **more})


def body(*messages: Any, **more: Any) -> bytes:
    said = messages or ({"role": "user", "content": TEXT},)
    return json.dumps({"model": "smart", "messages": said, **more}).encode()


def arrived(made: World, sent: bytes | None = None, **who: Any) -> Call:
    settings = dict(made.settings)
    gw = made.gateway()
    made.settings = settings
    call = new_call(ask(f"/run/r1{CHAT}", sent or body()), gw)
    identify = gw.identity.identify

    def identified(call: Call) -> Any:
        found, tools = identify(call)
        for name, value in {"step": 1, "run_id": "r1", **who}.items():
            setattr(found, name, value)
        return found, tools

    made.identity.identify = identified  # type: ignore[method-assign]
    try:
        arrive(call, gw)
    finally:
        made.identity.identify = identify  # type: ignore[method-assign]
    return call


def same(seen: bytes, expected: Features) -> bool:
    return tuple(decode(seen).words) == expected.words


def test_the_choice_is_sent_and_noted() -> None:
    call = arrived(world(rule(), s=known(weight=0.5)))
    assert json.loads(spliced(call.request.body, call.edits))["model"] == "cheap"
    assert call.notes == {
        "route": "0",
        "route_why": "learned",
        "route_to": "openai/cheap",
        "learn": "s",
        "learn_arm": "cheap",
        "learn_score": "0.800",
    }
    assert same(call.seen, features(TEXT, Situation(step=1, request_class=call.who.request_class)))
    assert arrived(world(rule(), s=known())).model_sent == "dear"


@pytest.mark.parametrize(
    "models", [{}, {"s": known(0.5, labels=499)}, {"s": known(0.5, arms=("dear", "old"))}, {"other": known(0.5)}]
)
def test_the_first_serves_until_enough_is_known(models: dict[str, Model]) -> None:
    call = arrived(world(rule(), **models))
    assert (call.model_sent, call.notes["route_why"]) == ("dear", "first")
    assert "learn_score" not in call.notes
    assert call.seen


def test_a_rule_that_chooses_otherwise_learns_too() -> None:
    call = arrived(world(rule(by="weight", to=(RouteTo(model="dear", weight=1e6), "cheap"))))
    assert (call.notes["route_why"], call.notes["learn_arm"]) == ("weight", "dear")
    assert call.seen
    silent = arrived(world(Route(to=ARMS, by="weight")))
    assert (silent.seen, "learn" in silent.notes) == (b"", False)


def test_a_canary_is_not_learned_of() -> None:
    canary = CanaryTo(id="c", to="fresh", share=0.5)
    made = world(rule(canary=canary), s=known(0.5))
    calls = [arrived(made, run_id=f"run{number}") for number in range(20)]
    assert {(call.model_sent, call.notes.get("learn_arm"), bool(call.seen)) for call in calls} == {
        ("fresh", None, False),
        ("cheap", "cheap", True),
    }


def test_targets_that_cannot_take_the_call_are_not_chosen() -> None:
    to = ("dear", RouteTo(model="cheap", lacks=("tools",)))
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    assert arrived(world(rule(to=to), s=known(0.5)), body(tools=tools)).model_sent == "dear"
    assert arrived(world(rule(to=to), s=known(0.5))).model_sent == "cheap"


def test_a_key_that_may_ask_for_some_targets_only_gets_one_of_them() -> None:
    made = world(rule(), s=known(0.5))
    terms = Rules([rule()]).terms[0]
    assert terms is not None
    call = arrived(made)
    for models, allowed in ((("smart",), [*ARMS]), (("dear",), ["dear"]), (("*",), [*ARMS]), (("x",), [*ARMS])):
        call.key = Key(id="k", digest=b"", models=models)
        assert terms.permitted(call, ARMS) == allowed


@pytest.mark.parametrize(("per", "scope"), [("rule", "s"), ("agent", "s|coder"), ("team", "s|red"), ("key", "s|k1")])
def test_scopes(per: Any, scope: str) -> None:
    terms = Rules([rule(learn=Learn(id="s", per=per))]).terms[0]
    assert terms is not None
    call = arrived(world(rule()))
    call.who = Who(agent="coder")
    assert terms.scope(call) == (scope if per in ("rule", "agent") else "s|")
    call.key = Key(id="k1", digest=b"", team="red")
    assert terms.scope(call) == scope


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        (
            [{"role": "system", "content": "be kind"}, {"role": "user", "content": [{"type": "text", "text": TEXT}]}],
            TEXT,
        ),
        (
            [
                {"role": "user", "content": TEXT},
                {"role": "assistant", "content": None, "tool_calls": [{"id": "t", "function": {"name": "user"}}]},
                {"role": "tool", "tool_call_id": "t", "content": "a user"},
            ],
            TEXT,
        ),
        (
            [
                {"role": "user", "content": "first"},
                {"role": "assistant", "content": "x"},
                {"role": "user", "content": TEXT},
            ],
            TEXT,
        ),
        ([{"role": "assistant", "content": "nobody asked"}], ""),
        ([], ""),
    ],
)
def test_what_the_user_said_last_is_looked_at(messages: list[Any], text: str) -> None:
    call = arrived(world(rule()), json.dumps({"model": "smart", "messages": messages}).encode())
    assert same(call.seen, features(text, Situation(step=1, request_class=call.who.request_class)))


PERSON = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
ASKED = {"response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}}}


def ended(made: World, request: Request, said: str, **change: Any) -> Call:
    """A call that was answered so."""
    settings = dict(made.settings)
    gw = made.gateway()
    made.settings = settings
    call = new_call(request, gw)
    arrive(call, gw)
    call.status, call.answer = 200, Answer()
    call.attempts = [Attempt(gw.specs["openai"].target, began=0, model=call.model_sent)]
    whole = json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]}).encode()
    call.captured = whole[: call.kept]
    for name, value in change.items():
        setattr(call, name, value)
    assert gw.router is not None
    gw.router.learn(call, gw)
    return call


@pytest.mark.parametrize(
    ("said", "change", "note"),
    [
        ('{"age": 3}', {}, "yes"),
        ('{"age": "3"}', {}, "no"),
        ("three", {}, "no"),
        ("three", {"status": 500}, None),
        ("three", {"answer": Answer(complete=False)}, None),
        ("three", {"answer": None}, None),
        ("three" * 20_000, {}, None),  # too long to be looked at
        ("three", {"attempts": []}, None),  # from the cache
    ],
)
def test_an_answer_is_held_against_the_schema(said: str, change: dict[str, Any], note: str | None) -> None:
    made = world(rule())
    call = ended(made, ask(CHAT, body(**ASKED)), said, **change)
    assert call.kept
    assert call.notes.get("learn_valid") == note


def test_nothing_is_kept_of_answers_that_need_no_schema() -> None:
    assert arrived(world(rule())).kept == 0
    assert arrived(world(rule()), body(response_format={"type": "text"})).kept == 0


# -- shadow runs


SHADOWED = Learn(id="s", explore=0, shadow=1.0)  # more than a configuration may say: each call


def test_another_target_is_asked_behind_the_clients_back() -> None:
    sent: list[Request] = []
    made = world(rule(learn=SHADOWED), sent=sent, s=known(arms=("dear", "cheap")))
    first = ended(made, ask(CHAT, body()), "It is Paris.")
    (request,) = sent
    assert (request.body, request.checks, request.pair.arm) == (first.request.body, -1, "cheap")
    for said, agreed in (("it is paris", "yes"), ("It is not Paris.", "no"), ("Well, Paris it would be", None)):
        call = ended(made, request, said)
        assert json.loads(spliced(call.request.body, call.edits))["model"] == "cheap"
        assert (call.notes["route_why"], call.notes["route_to"]) == ("shadow", "openai/cheap")
        assert (call.notes["learn"], call.notes["learn_arm"], call.who.request_class) == ("s", "cheap", "shadow")
        assert call.seen == first.seen
        assert call.notes.get("learn_agreed") == agreed
    assert len(sent) == 1  # a shadow has none itself


@pytest.mark.parametrize(
    ("asked", "change"),
    [
        ({"store": True}, {}),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, {}),
        ({"n": 2}, {}),
        ({"temperature": 1.5}, {}),
        ({}, {"status": 500}),
        ({}, {"attempts": []}),
    ],
)
def test_nothing_is_asked_again_on_which_more_than_words_hangs(asked: dict[str, Any], change: dict[str, Any]) -> None:
    sent: list[Request] = []
    ended(world(rule(learn=SHADOWED), sent=sent), ask(CHAT, body(**asked)), "Paris", **change)
    assert sent == []


def test_of_two_others_the_one_of_which_less_is_known_is_asked() -> None:
    arms = ("dear", "cheap", "new")
    some = Model(arms, (1.0, 0.1, 0.1), labels=20, counts=(10.0, 8.0, 2.0))
    sent: list[Request] = []
    ended(world(rule(to=arms, learn=SHADOWED), sent=sent, s=some), ask(CHAT, body()), "Paris")
    assert [request.pair.arm for request in sent] == ["new"]
    ended(world(rule(learn=SHADOWED), sent=sent, s=known(0.5)), ask(CHAT, body()), "Paris")
    assert len(sent) == 1  # the second target answered: there is nothing to hold against it
