from __future__ import annotations

import pytest

from gateway.call import Asked, Call, Request, Route, Trace, Who
from gateway.config import schema
from gateway.config.schema import Fallback
from gateway.policy.chains import Chains, Goal


def call(model: str = "gpt-4o", sent: str = "", agent: str = "") -> Call:
    route = Route("/v1/chat/completions", "openai_chat", "chat", "openai", b"")
    return Call(
        "1", Request(b"POST", b"", [], b""), route, Asked(model), Who(agent=agent), Trace(), 0, 0, model_sent=sent
    )


def goals(rules: list[Fallback], one: Call, trouble: str = "failure", chance: float = 0.0) -> list[Goal]:
    return Chains(rules).goals(one, "openai", trouble, lambda: chance)


def test_the_first_rule_for_a_call_and_its_trouble_counts() -> None:
    rules = [
        Fallback(to=("a",), model="o*"),
        Fallback(to=("b",), on=("context",)),
        Fallback(to=("c",), agent="x"),
        Fallback(to=("d", schema.Goal(model="m"))),
        Fallback(to=("e",)),
    ]
    assert goals(rules, call()) == [Goal("d"), Goal("", "m")]
    assert goals(rules, call("o3")) == [Goal("a")]
    assert goals(rules, call("house", sent="o3")) == [Goal("a")]
    assert goals(rules, call(agent="x")) == [Goal("c")]
    assert goals(rules, call(), "context") == [Goal("b")]
    assert goals(rules, call(), "policy") == []


@pytest.mark.parametrize(
    ("field", "value"), [("upstream", "azure"), ("route", "/v1/messages"), ("agent", "y"), ("model", "q")]
)
def test_all_of_its_patterns_must_match(field: str, value: str) -> None:
    assert goals([Fallback(to=("a",), **{field: value})], call()) == []  # type: ignore[arg-type]


def test_a_weighted_chain_is_drawn_anew_each_time() -> None:
    heavy, light = schema.Goal(upstream="heavy", weight=3), schema.Goal(upstream="light", weight=1)
    rule = [Fallback(to=(heavy, light), order="weighted")]
    first = [goals(rule, call(), chance=chance / 100)[0].upstream for chance in range(100)]
    assert first.count("heavy") == 75
    assert all(len(goals(rule, call(), chance=chance / 10)) == 2 for chance in range(10))
    assert goals(rule, call(), chance=0.9999999999999999)[0].upstream == "light"


def test_nothing_is_configured() -> None:
    assert not Chains([])
    assert Chains([Fallback(to=("a",))])
