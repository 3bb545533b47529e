"""Which sign belongs to which call, and when it is a label."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.policy import selection_watch
from gateway.policy.selection_features import features
from gateway.policy.selection_labels import INVALID, QUIET, REPORTED, RETRIED
from gateway.policy.selection_watch import KEPT_FOR, PATIENCE, Entry, Outcome, Result, Watch
from gateway.policy.selection_wire import NotFeatures, decode, encode

SECOND = 10**9


def call(id: str, run: str = "r", at: int = 0, **known: Any) -> Outcome:
    return Outcome(**{"id": id, "scope": "s", "arm": "a", "run": run, "at": at, "seen": b"x", "size": 10, **known})


def told(entries: list[Entry]) -> dict[str, tuple[float, float]]:
    return {entry.call.id: (entry.score, round(entry.weight, 6)) for entry in entries}


def test_a_report_is_about_all_calls_of_its_run_and_the_last_one_counts() -> None:
    watch = Watch()
    for number in range(4):
        assert watch.end(call(f"c{number}", at=number, size=number), []) == []
    assert watch.end(call("other", "q"), []) == []
    quarter = REPORTED / 4
    assert told(watch.report("r", 1.0)) == {f"c{number}": (1.0, quarter) for number in range(4)}
    assert watch.report("r", 1.0) == []  # nothing new
    assert told(watch.report("r", 0.0)) == {f"c{number}": (0.0, quarter) for number in range(4)}
    assert told(watch.report("r", 0.25))["c0"] == (0.25, quarter)


def test_a_report_may_come_before_the_record_of_its_call() -> None:
    watch = Watch()
    assert watch.report("r", 1.0) == []
    assert told(watch.end(call("late"), [])) == {"late": (1.0, REPORTED)}


def test_signs_are_waited_with() -> None:
    watch = Watch()
    watch.end(call("bad", "1", valid=False), [])
    watch.end(call("good", "2", valid=True), [])
    watch.end(call("none", "3"), [])
    assert watch.settle(PATIENCE - 1) == []
    assert told(watch.settle(PATIENCE)) == {"bad": (0.0, INVALID), "good": (1.0, QUIET)}
    assert watch.settle(PATIENCE + 1) == []
    assert told(watch.report("1", 1.0)) == {"bad": (1.0, REPORTED)}  # amended
    assert len(watch) == 3
    watch.settle(KEPT_FOR + 1)
    assert len(watch) == 0
    assert watch.report("2", 0.0) == []


@pytest.mark.parametrize(
    ("again", "retried"),
    [
        ({"at": 20 * SECOND}, True),
        ({"at": 20 * SECOND, "size": 11}, False),  # a later step of the run
        ({"at": 20 * SECOND, "seen": b"y"}, False),
        ({"at": 400 * SECOND}, False),  # asked anew
        ({"at": 20 * SECOND, "run": "other"}, False),
    ],
)
def test_who_asks_the_same_again_was_not_served(again: dict[str, Any], retried: bool) -> None:
    watch = Watch()
    watch.end(call("first"), [])
    watch.end(call("second", **again), [])
    assert told(watch.settle(PATIENCE)) == ({"first": (0.0, RETRIED)} if retried else {})


def test_a_failed_tool_is_held_against_the_answer_that_called_it() -> None:
    watch = Watch()
    watch.end(call("one", uses=("t1", "t2"), size=1), [])
    watch.end(call("two", uses=("t3",), size=2), [Result("t1", True), Result("t2", False)])
    watch.end(call("three", size=3), [Result("t3", False), Result("t9", True)])
    assert told(watch.settle(PATIENCE)) == {"one": (0.5, 0.3), "two": (1.0, QUIET)}


def test_what_is_read_again_changes_nothing() -> None:
    watch = Watch()
    watch.end(call("a"), [])
    watch.changed.clear()
    assert watch.end(call("a"), []) == []
    assert not watch.changed
    assert told(watch.settle(PATIENCE)) == {}  # not taken for a retry either


def test_the_number_of_calls_waited_on_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection_watch, "MOST", 10)
    watch = Watch()
    driven_out = [watch.end(call(f"c{n}", f"r{n}", at=n, valid=False), []) for n in range(25)]
    assert len(watch) == 10
    assert [entry.call.id for found in driven_out for entry in found] == [f"c{n}" for n in range(15)]
    assert watch.report("r3", 1.0) == []  # nobody remembers
    assert told(watch.report("r24", 1.0)) == {"c24": (1.0, REPORTED)}
    for number in range(30):
        watch.report(f"unknown{number}", 1.0)
    assert "x" not in told(watch.end(call("x", "unknown0", at=25), []))  # nor of reports
    assert told(watch.end(call("y", "unknown29", at=25), []))["y"] == (1.0, REPORTED)


# -- on the wire


def test_features_pass_the_wire() -> None:
    seen = features("Prove that the sum of 3 and 4 is 7, step by step. " * 30)
    found = decode(encode(seen))
    assert found.measures == pytest.approx(seen.measures, rel=1e-3, abs=1e-3)
    assert (tuple(found.words), tuple(found.pairs)) == (seen.words, seen.pairs)
    assert (found.weight, found.length) == (pytest.approx(seen.weight), pytest.approx(seen.length))
    assert len(encode(seen)) < 400
    assert decode(encode(features(""))).length == 0


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x14\x10\x00\x10\x00aaaabbbb"])
def test_what_is_none_is_said(data: bytes) -> None:
    with pytest.raises(NotFeatures):
        decode(data)
