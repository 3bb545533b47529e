"""What is done about a run that goes round in circles."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.call import Call
from gateway.pipeline import serve
from gateway.policy.loop_signals import Verdict
from gateway.testing.doubles import World, ask, drive

JSON = ((b"Content-Type", b"application/json"),)
BODY = b'{"model":"gpt-4o","max_tokens":900,"messages":[]}'


class Saw:
    """`ports.Loops`: finds what it was made with."""

    def __init__(self, *actions: Any) -> None:
        self.verdicts = [Verdict("cycle", action, f"round and round ({action})", {}) for action in actions]
        self.learned: list[Call] = []

    def check(self, call: Call, now: int) -> list[Verdict]:
        return self.verdicts

    def learn(self, call: Call, now: int) -> None:
        self.learned.append(call)


def played(*actions: Any, **settings: Any) -> tuple[World, Saw]:
    world, saw = World(), Saw(*actions)
    world.settings.update(loops=saw, **settings)
    world.answer(200, JSON, [b"{}"])
    drive(serve(ask("/v1/chat/completions", BODY), world.down, world.gateway()))
    return world, saw


def said(world: World) -> str:
    assert world.down.head is not None
    return world.down.head[2].decode()


def test_a_run_that_gets_on_is_left_alone() -> None:
    world, saw = played()
    assert (world.call.status, world.call.notes) == (200, {})
    assert "x-tollgate-loop" not in said(world)
    assert saw.learned == [world.call]


@pytest.mark.parametrize(("action", "header"), [("note", False), ("warn", True)])
def test_a_note_is_in_the_record_and_a_warning_at_the_client_too(action: str, header: bool) -> None:
    world, _ = played(action)
    assert world.call.status == 200
    assert world.call.notes["loop"] == "cycle"
    assert world.call.notes["loop_action"] == action
    assert ("x-tollgate-loop: cycle\r\n" in said(world)) == header


def test_a_downshift_makes_the_call_cheaper() -> None:
    world, _ = played("downshift", downshift=("gpt-4o-mini", None, 300))
    sent = json.loads(world.upstreams.sent[0].partition(b"\r\n\r\n")[2])
    assert sent == {"model": "gpt-4o-mini", "max_tokens": 300, "messages": []}
    assert "x-tollgate-loop: cycle\r\n" in said(world)


def test_a_stop_says_why_halts_the_run_and_sends_nothing() -> None:
    halted: list[tuple[str, str]] = []
    world, saw = played("note", "stop", halt=lambda run, why: halted.append((run, why)))
    assert world.call.status == 402
    error = json.loads(world.down.sent)["error"]
    assert "round and round (stop)" in error["message"]
    assert error["tollgate_code"] == "run_stopped"
    assert halted == [("run-1", "cycle: round and round (stop)")]
    assert not world.upstreams.sent
    assert saw.learned == [world.call]
