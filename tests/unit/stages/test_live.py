"""A kill reaches calls before they go, while they wait for an answer, and in mid-stream."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.errors import RunStopped
from gateway.journal.convert import outcome_of
from gateway.pipeline import serve
from gateway.policy.controls import Scope, Standing
from gateway.stages.live import Live
from gateway.testing.doubles import World, ask, drive

JSON = ((b"Content-Type", b"application/json"),)
SSE = ((b"Content-Type", b"text/event-stream"),)
CHAT = "/v1/chat/completions"
QUESTION = b'{"model":"gpt-4o","messages":[]}'
STREAM = b'{"model":"gpt-4o","messages":[],"stream":true}'
DELTA = b'data: {"id":"c","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
KILL = Standing(Scope.RUN, "run-1", 1, killed_at=1, reason="it loops", who="ops")
RESUME = Standing(Scope.RUN, "run-1", 2)


def test_a_stopped_run_is_refused_before_anything_is_sent() -> None:
    world = World()
    world.controls.take([KILL])
    assert drive(serve(ask(CHAT, QUESTION), world.down, world.gateway())) == []
    assert (world.call.status, world.upstreams.sent, outcome_of(world.call)) == (402, [], "refused")
    assert b'"code":"insufficient_quota"' in world.down.sent
    assert b"run run-1 was stopped by ops: it loops." in world.down.sent
    assert world.down.head is not None
    assert b"x-should-retry: false" in world.down.head[2]
    assert len(world.live) == 0


@pytest.mark.parametrize(
    ("path", "words"),
    [("/v1/messages", b'"type":"billing_error"'), ("/v1beta/models/g:generateContent", b"RUN_STOPPED")],
)
def test_every_dialect_has_words_for_it(path: str, words: bytes) -> None:
    world = World()
    world.controls.take([KILL])
    drive(serve(ask(path, b'{"model":"m","max_tokens":5,"messages":[],"contents":[]}'), world.down, world.gateway()))
    assert world.call.status == 402
    assert words in world.down.sent
    assert b"it loops" in world.down.sent


def test_a_resumed_run_goes_on() -> None:
    world = World()
    world.controls.take([KILL, RESUME])
    world.answer(200, JSON, [b'{"id":"c","model":"gpt-4o","choices":[]}'])
    drive(serve(ask(CHAT, QUESTION), world.down, world.gateway()))
    assert world.call.status == 200


class Interrupts:
    """Drives a call, lets `during` happen at one of its awaits, and raises there what it was interrupted with."""

    def __init__(self, world: World, body: bytes) -> None:
        self.world = world
        self.work = serve(ask(CHAT, body), world.down, world.gateway())

    def run(self, at: int, during: Callable[[], None]) -> None:
        down = self.world.down
        try:
            self.work.send(None)
            for number in range(100):
                if number == at:
                    during()
                if down.interrupted:
                    self.work.throw(down.interrupted.pop())
                else:
                    self.work.send(None)
        except StopIteration:
            return
        raise AssertionError("it goes on and on")


@pytest.mark.parametrize("at", [0, 1])
def test_a_call_that_waits_for_its_answer_is_refused(at: int) -> None:
    world = World()
    world.answer(200, JSON, [b"{}"])

    def kill() -> None:
        world.controls.take([KILL])
        assert world.live.sweep(world.controls) == 1

    Interrupts(world, QUESTION).run(at, kill)
    assert world.call.status == 402
    assert world.down.endings == ["finish"]
    estimated = world.call.answer is not None and world.call.answer.usage is not None
    assert estimated == (at == 1)  # once it was sent the provider may charge for it
    assert world.live.insist() == 0


def test_a_stream_under_way_ends_with_an_event_of_its_dialect_and_a_cut() -> None:
    world = World()
    exchange = world.answer(200, SSE, [DELTA, DELTA, DELTA])

    def kill() -> None:
        world.controls.take([KILL])
        world.live.sweep(world.controls)

    Interrupts(world, STREAM).run(4, kill)
    assert world.down.sent.startswith(DELTA)
    assert b'"error"' in world.down.sent
    assert b"it loops" in world.down.sent
    assert b"[DONE]" not in world.down.sent
    assert world.down.endings == ["abort"]
    assert exchange.closed
    assert (world.call.status, outcome_of(world.call)) == (200, "truncated")
    assert isinstance(world.call.fault, RunStopped)
    assert world.call.answer is not None
    assert world.call.answer.usage is not None  # what was said is billed


def test_only_what_is_stopped_is_interrupted_and_again_until_it_ends() -> None:
    world, other = World(), World()
    live = Live()
    killed, spared = call_in(world, "run-1"), call_in(other, "run-2")
    live.add(killed, world.down)
    live.add(spared, other.down)
    world.controls.take([KILL])
    assert live.sweep(world.controls) == 1
    assert live.insist() == 1
    assert len(world.down.interrupted) == 2
    assert not other.down.interrupted
    live.remove(killed)
    live.remove(killed)
    assert live.insist() == 0
    world.controls.take([RESUME])
    assert live.sweep(world.controls) == 0
    assert len(world.down.interrupted) == 2


def call_in(world: World, run_id: str):
    world.answer(200, JSON, [b'{"id":"c","model":"gpt-4o","choices":[]}'])
    drive(serve(ask(CHAT, QUESTION), world.down, world.gateway()))
    call = world.call
    call.id, call.who.run_id = run_id, run_id
    return call
