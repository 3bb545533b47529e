from __future__ import annotations

import pytest

from gateway.call import Asked, Call, Request, Route, Trace, Who
from gateway.config.schema import TimeoutRule, Timeouts
from gateway.policy.waits import REMEMBERED, WaitRules

CHAT = "/v1/chat/completions"


def call(
    model: str = "gpt-4o", *, sent: str = "", upstream: str = "openai", route: str = CHAT, agent: str = ""
) -> Call:
    made = Call(
        "1", Request(b"POST", b"", [], b""), Route(route, "", "chat", upstream, b""), Asked(model), Who(), Trace(), 0, 0
    )
    made.who.agent, made.model_sent = agent, sent
    return made


def test_without_a_rule_they_are_those_of_the_upstream() -> None:
    rules = WaitRules((), {"openai": Timeouts(connect=1, first_byte=2, first_content=3, idle=4, total=5, ping=6)})
    waits = rules.waits(call())
    assert (waits.connect, waits.first_byte, waits.first_content) == (1, 2, 3)
    assert (waits.idle, waits.total, waits.ping) == (4, 5, 6)
    assert rules.waits(call(upstream="other")).first_byte == Timeouts().first_byte


@pytest.mark.parametrize(
    ("rule", "hit"),
    [
        (TimeoutRule(first_byte=7), True),
        (TimeoutRule(model="gpt-*", first_byte=7), True),
        (TimeoutRule(model="house", first_byte=7), True),
        (TimeoutRule(model="o*", first_byte=7), False),
        (TimeoutRule(upstream="azure", first_byte=7), False),
        (TimeoutRule(route="/v1/messages", first_byte=7), False),
        (TimeoutRule(agent="plan*", first_byte=7), True),
        (TimeoutRule(agent="x", first_byte=7), False),
    ],
)
def test_a_rule_matches_by_all_of_its_patterns(rule: TimeoutRule, hit: bool) -> None:
    waits = WaitRules((rule,), {}).waits(call("house", sent="gpt-4o", agent="planner"))
    assert (waits.first_byte == 7) == hit


def test_the_first_rule_that_states_a_timeout_counts() -> None:
    rules = (TimeoutRule(model="gpt-4o", idle=1), TimeoutRule(idle=2, connect=3), TimeoutRule(connect=4, ping=5))
    waits = WaitRules(rules, {"openai": Timeouts(idle=9, connect=9)}).waits(call())
    assert (waits.idle, waits.connect, waits.ping) == (1, 3, 5)


def test_models_that_think_for_long_may_be_silent_for_longer() -> None:
    rules = WaitRules(
        (TimeoutRule(model="o3-pro-x", first_byte=5),), {"openai": Timeouts(), "quick": Timeouts(first_byte=9)}
    )
    slow = rules.waits(call("o3-pro"))
    assert (slow.first_byte, slow.first_content, slow.idle) == (1800, 1800, 300)
    assert slow.total >= slow.first_content
    assert rules.waits(call("o3")).first_byte == 600
    assert rules.waits(call("o3-pro", upstream="quick")).first_byte == 9, "what an upstream states is not raised"
    assert rules.waits(call("o3-pro-x")).first_byte == 5


def test_what_is_remembered_is_bounded() -> None:
    rules = WaitRules((), {})
    for number in range(REMEMBERED + 10):
        rules.waits(call(f"m{number}"))
    assert len(rules._known) <= REMEMBERED
