"""What a scope has learned, as bytes and back: the same decisions, or nothing at all."""

from __future__ import annotations

import random

import msgspec
import pytest

from gateway.matcher import memento
from gateway.policy.semantic_scope import Entry, Near, Scope
from gateway.policy.semantic_text import Said

TEXTS = [f"{what} the {how} {thing}" for what in ("who built", "when was") for how in ("red", "old") for thing in
         ("barn", "mill", "tower")]  # fmt: skip


def grown(seed: int = 1, rounds: int = 300) -> Scope:
    scope, draw = Scope(0.02), random.Random(seed)
    for _ in range(rounds):
        step(scope, draw)
    return scope


def step(scope: Scope, draw: random.Random) -> tuple[bool, float, float]:
    one, other = draw.choice(TEXTS), draw.choice(TEXTS)
    near = [Near(Entry(TEXTS.index(one), Said(one), TEXTS.index(one)), draw.uniform(0.85, 0.99))]
    decision = scope.decide(Said(other), near, draw.random())
    scope.settle(decision, {TEXTS.index(one): one.split()[-1] == other.split()[-1]})
    scope.rarity.add(Said(other))
    best = decision.best
    return decision.serve, decision.weight, best.guess.logit if best is not None else 0.0


def test_a_scope_that_was_read_goes_on_as_if_nothing_had_been() -> None:
    scope = grown()
    scope.feedback(Said(TEXTS[0]), scope.look(Said(TEXTS[0]), [Near(Entry(1, Said(TEXTS[1]), 1), 0.9)]), False)
    again = memento.loaded(memento.dumped(scope))
    assert again is not None
    assert again.target == 0.02
    assert [step(scope, draw) for draw in [random.Random(5)] for _ in range(150)] == [
        step(again, draw) for draw in [random.Random(5)] for _ in range(150)
    ]
    assert memento.dumped(again) == memento.dumped(scope)


def test_a_new_scope_can_be_written_too() -> None:
    again = memento.loaded(memento.dumped(Scope(0.01)))
    assert again is not None
    assert again.cut == float("inf")


PLAIN = (["o", "Scope"], ["o", "Path", "x", 1], ["l", 1], ["q"], 7)


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\xff" * 40, *map(msgspec.msgpack.encode, PLAIN)])
def test_what_is_no_scope_is_not_read(data: bytes) -> None:
    assert memento.loaded(data) is None


def test_every_cut_of_a_memento_is_nothing() -> None:
    data = memento.dumped(grown(rounds=40))
    assert all(memento.loaded(data[:size]) is None for size in range(0, len(data), max(1, len(data) // 200)))


def test_a_scope_of_other_attributes_is_not_read() -> None:
    data = memento.dumped(grown(rounds=20))
    plain = msgspec.msgpack.decode(data)
    at = plain.index("trips")
    assert memento.loaded(msgspec.msgpack.encode([*plain[:at], "trip_count", *plain[at + 1 :]])) is None
    assert memento.loaded(msgspec.msgpack.encode([*plain[:at], *plain[at + 2 :]])) is None
    learner = plain.index("learner")
    inner = plain[learner + 1]
    assert memento.loaded(msgspec.msgpack.encode([*plain[: learner + 1], inner[:-2], *plain[learner + 2 :]])) is None


def test_what_it_does_not_know_it_says() -> None:
    scope = Scope(0.01)
    scope.trips = object()  # type: ignore[assignment]
    with pytest.raises(TypeError, match="object"):
        memento.dumped(scope)
