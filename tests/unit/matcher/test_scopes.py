"""The scopes that the matcher has in mind, and those on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.matcher import scopes as module
from gateway.matcher.memory import Memory
from gateway.matcher.scopes import EVERY, Scopes
from gateway.policy.semantic_scope import Scope
from gateway.ports import Topic


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    found = Memory(tmp_path / "m", "e")
    yield found
    found.close()


def topic(name: str, tenant: str = "t", **more: Any) -> Topic:
    return Topic(**{"scope": name, "tenant": tenant, "target": 0.02, "sample": 0.1, "ttl": 1, "serve": True, **more})


def test_one_scope_is_written_at_a_time_the_longest_waiting_first(memory: Memory) -> None:
    scopes = Scopes(memory)
    for number, name in enumerate(("a", "b", "c")):
        studied = scopes.of(topic(name), number)
        studied.changed = True
    scopes.keep_next(EVERY)
    assert {name for name, _ in memory.scopes()} == {"a"}
    scopes.keep_next(EVERY)
    scopes.keep_next(EVERY)
    assert {name for name, _ in memory.scopes()} == {"a", "b", "c"}
    scopes.of(topic("a"), 1).changed = True
    scopes.of(topic("a"), 1).counts.hits = 7
    scopes.keep_next(EVERY + 1)
    assert b"\x07" not in memory.scope("a")[1], "not so soon again"  # type: ignore[index]
    scopes.keep_next(2 * EVERY)
    assert Scopes(memory).of(topic("a"), 1).counts.hits == 7


def test_what_was_learned_for_one_target_is_not_served_for_another(memory: Memory) -> None:
    scopes = Scopes(memory)
    studied = scopes.of(topic("a"), 1)
    studied.scope.cut = 0.0
    scopes.write(studied, 1)
    again = Scopes(memory).of(topic("a", target=0.001), 1)
    assert again.scope.target == 0.001
    assert again.scope.lifts.limit == Scope(0.001).lifts.limit
    assert again.learning, "the cut is chosen anew, and there is no evidence"
    assert Scopes(memory).of(topic("a"), 1).scope.cut == 0.0


def test_nobody_displaces_the_scopes_of_others(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OF_TENANT", 3)
    scopes = Scopes(memory)
    mine = scopes.of(topic("mine", "me"), 1)
    for number in range(10):
        scopes.of(topic(f"s{number}", "busy"), number).changed = True
    assert [one.name for one in scopes.all()] == ["mine", "s7", "s8", "s9"]
    assert scopes.of(topic("mine", "me"), 1) is mine
    assert {name for name, _ in memory.scopes()} == {f"s{number}" for number in range(7)}, "they are kept on disk"
    assert scopes.known("s0", 1) is not None
    assert scopes.known("nobody", 1) is None


def test_what_cannot_be_read_learns_anew(memory: Memory) -> None:
    memory.keep("a", "t", 1, b"of another version", b"\xff")
    studied = Scopes(memory).of(topic("a"), 1)
    assert (studied.scope.learner.labels, studied.counts.hits, studied.learning) == (0, 0, True)


def test_those_used_last_are_there_at_once(memory: Memory) -> None:
    scopes = Scopes(memory)
    for number in range(5):
        scopes.of(topic(f"s{number}"), number).changed = True
    scopes.keep(9)
    again = Scopes(memory)
    again.load(10)
    assert {one.name for one in again.all()} == {f"s{number}" for number in range(5)}
