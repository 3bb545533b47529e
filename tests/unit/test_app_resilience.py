"""What a worker does at each tick about its memory: caches before calls, the answers before the links. What it says of
its breakers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.app_resilience import Resilience
from gateway.config.schema import Config
from gateway.config.schema_bulkheads import Overload
from gateway.config.schema_resilience import Breakers
from gateway.journal.inflight import Gauges, InFlight
from gateway.policy.breaker import Change, State

MB = 1_048_576


@dataclass
class Cache:
    held: int
    full: int = 64 * MB

    def give_way(self, room: int | None) -> int:
        before, self.held = self.held, self.held if room is None else min(self.held, room)
        return before - self.held


@dataclass
class Journal:
    gauges: Gauges = field(default_factory=lambda: InFlight.anonymous("w0", b"12345678").gauges)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def append_event(self, kind: str, **detail: Any) -> bool:
        self.events.append((kind, detail))
        return True


def test_all_that_caches_hold_goes_before_calls_do(monkeypatch: pytest.MonkeyPatch) -> None:
    journal, answers, links = Journal(), Cache(30 * MB), Cache(10 * MB)
    others = 50 * MB
    monkeypatch.setattr("gateway.app_resilience.resident", lambda: others + answers.held + links.held)
    resilience = Resilience(journal, 0)
    resilience.answers, resilience.links = lambda: answers, links
    resilience.shedder(Config(overload=Overload(memory_bytes=80 * MB)))
    resilience.tick(0.0)
    assert (answers.held, links.held) == (0, 0)
    assert [kind for kind, _ in journal.events] == ["caches_shrunk"]
    assert journal.events[0][1] == {"answers": 30 * MB, "links": 10 * MB, "memory": 90 * MB, "mark": 80 * MB}
    assert journal.gauges.get("overload_level") == 0
    others = 81 * MB
    resilience.tick(0.0)
    assert [(kind, one.get("cause")) for kind, one in journal.events[1:]] == [("overload", "memory")]


def test_answers_go_before_links_and_without_a_mark_nothing_does(monkeypatch: pytest.MonkeyPatch) -> None:
    journal, answers, links = Journal(), Cache(8 * MB), Cache(20 * MB)
    monkeypatch.setattr("gateway.app_resilience.resident", lambda: 46 * MB + answers.held + links.held)
    resilience = Resilience(journal, 0)
    resilience.answers, resilience.links = lambda: answers, links
    resilience.tick(0.0)
    assert (answers.held, journal.events) == (8 * MB, [])
    resilience.shedder(Config(overload=Overload(memory_bytes=80 * MB)))
    resilience.tick(0.0)
    assert (answers.held, links.held) == (0, 14 * MB)  # half of all


def test_what_a_call_finds_that_began_before_a_reload_is_not_said_of_the_new_breakers() -> None:
    journal = Journal()
    resilience = Resilience(journal, 0)
    config = Config(breakers=Breakers(enabled=True, consecutive=1))
    change = Change(State.OPEN, "1 failures in a row")
    before = resilience.trials(config).breakers
    after = resilience.trials(config).breakers
    assert before is not None
    assert after is not None
    before._told("openai", change)
    assert [kind for kind, _ in journal.events] == ["breakers_reset", "breakers_reset"]
    after._told("openai", change)
    assert [kind for kind, _ in journal.events] == ["breakers_reset", "breakers_reset", "breaker"]
