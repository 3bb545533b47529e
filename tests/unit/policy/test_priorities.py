"""How urgent a call is: by rule, key and header."""

from __future__ import annotations

import pytest

from gateway.call import Call
from gateway.config.schema import PriorityRule
from gateway.key import Key
from gateway.policy.bulkhead import BATCH, INTERACTIVE, URGENT, Priority
from gateway.policy.priorities import Priorities, is_again
from gateway.stages.arrive import arrive, new_call
from gateway.testing.doubles import World, ask

QUESTION = b'{"model":"gpt-4o","messages":[]}'


def call_of(*headers: tuple[bytes, bytes], key: Key | None = None, checks: int = 0) -> Call:
    gw = World().gateway()
    call = new_call(ask("/v1/chat/completions", QUESTION, *headers), gw)
    arrive(call, gw)
    call.key, call.request.checks = key, checks
    return call


def stated(value: bytes) -> tuple[bytes, bytes]:
    return (b"x-tollgate-priority", value)


RULES = (
    PriorityRule(key="ci-*", priority="batch"),
    PriorityRule(team="ops", priority="urgent"),
    PriorityRule(model="gpt-5*", priority="urgent"),
)
BATCH_KEY = Key("k1", metadata={"priority": "batch"})


@pytest.mark.parametrize(
    ("call", "priority"),
    [
        (call_of(), INTERACTIVE),
        (call_of(stated(b"batch")), BATCH),
        (call_of(stated(b" Urgent")), URGENT),  # without keys its client is believed
        (call_of(stated(b"very")), INTERACTIVE),
        (call_of(checks=7), BATCH),
        (call_of(key=BATCH_KEY), BATCH),
        (call_of(stated(b"urgent"), key=BATCH_KEY), BATCH),
        (call_of(key=Key("k1", metadata={"priority": "urgent"})), URGENT),
        (call_of(stated(b"batch"), key=Key("k1", metadata={"priority": "urgent"})), BATCH),
        (call_of(key=Key("k1", metadata={"priority": "?"})), INTERACTIVE),
        (call_of(stated(b"urgent"), key=Key("k1")), INTERACTIVE),
        (call_of(key=Key("k1", name="ci-7", metadata={"priority": "urgent"})), BATCH),  # a rule outranks the key
        (call_of(key=Key("k1", team="ops")), URGENT),
    ],
)
def test_how_urgent_it_is(call: Call, priority: Priority) -> None:
    rules = Priorities(RULES)
    assert rules.of(call) is priority
    assert rules.of(call) is priority  # also when its rule is known


def test_without_rules_nothing_is_looked_up():
    assert Priorities(()).of(call_of()) is INTERACTIVE


@pytest.mark.parametrize(("count", "again"), [(b"0", False), (b"1", True), (b"", False), (b" 12", True)])
def test_what_a_client_sends_again(count: bytes, again: bool) -> None:
    assert is_again(call_of((b"x-stainless-retry-count", count))) is again
    assert not is_again(call_of())
