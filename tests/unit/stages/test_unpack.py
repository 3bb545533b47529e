"""Compressed requests: read step by step, whatever they expand to."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard

from gateway.config.schema import Budget
from gateway.pipeline import serve
from gateway.policy.encoding import FLOOR, STEP
from gateway.stages.unpack import EXPANDED, LONG
from gateway.testing.doubles import World, ask, drive
from gateway.testing.memory_budgets import limit

CHAT = "/v1/chat/completions"
CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}
MEMBERS = "many members"


def question(size: int) -> bytes:
    return json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "word " * (size // 5)}]}).encode()


def sent(body: bytes, coding: str, world: World | None = None) -> tuple[World, list[str]]:
    world = world or World()
    world.answer(200, [(b"Content-Type", b"application/json")], [b"{}"])
    stops = drive(serve(ask(CHAT, body, (b"Content-Encoding", coding.encode())), world.down, world.gateway()))
    return world, stops


@pytest.mark.parametrize("coding", CODERS)
@pytest.mark.parametrize("size", [100, 2 * STEP, 2 * EXPANDED])
def test_an_honest_body_is_read_and_sent_as_it_came(coding: str, size: int) -> None:
    packed = CODERS[coding](question(size))
    world, stops = sent(packed, coding)
    assert world.upstreams.sent[0].endswith(b"\r\n\r\n" + packed)
    assert world.call.asked.model == "gpt-4o"
    assert ("turn" in stops) == (size > STEP), "what is small waits for nobody"
    assert ("alone" in stops) == (size > EXPANDED)
    assert not world.turns.held


@pytest.mark.parametrize("coding", [*CODERS, MEMBERS])
def test_a_bomb_is_refused_and_everything_else_comes_in_between(coding: str) -> None:
    if coding == MEMBERS:
        coding, packed = "gzip", gzip.compress(bytes(2**20)) * (2 * FLOOR // 2**20)
    else:
        packed = CODERS[coding](bytes(2 * FLOOR))
    world, stops = sent(packed, coding)
    assert not world.upstreams.sent
    assert world.call.status == 400
    assert b"invalid_encoding" in world.down.sent
    most = 2 * STEP if coding != "zstd" else FLOOR  # one bite of zstd may give as much
    assert stops.count("turn") >= FLOOR // most
    assert stops.count("alone") == 1
    assert not world.turns.held


@pytest.mark.parametrize("coding", ["", "gzip"])
@pytest.mark.parametrize("size", [LONG // 2, 2 * LONG])
def test_a_long_body_is_read_aside_and_once(coding: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    body, headers = question(size), [(b"Content-Encoding", b"gzip")] if coding else []
    world = World()
    limit(world, budgets=[Budget("global", usd=50)])
    dialect, places = world.dialects["openai_chat"], []
    read = dialect.read
    monkeypatch.setattr(dialect, "read", lambda *args: (places.append(world.turns.beside), read(*args))[1])
    world.answer(200, [(b"Content-Type", b"application/json")], [b"{}"])
    packed = gzip.compress(body) if coding else body
    stops = drive(serve(ask(CHAT, packed, *headers), world.down, world.gateway()))
    assert world.upstreams.sent[0].endswith(b"\r\n\r\n" + packed)
    assert places == [size > LONG]
    assert stops.count("aside") == (2 if size > LONG else 0)  # once to read it, once to reckon what it may cost
    assert world.call.status == 200


def test_what_is_wrong_with_a_long_body_is_said_as_of_others() -> None:
    world, _ = sent(question(2 * LONG)[:-1], "identity")
    assert world.call.status == 400
    assert b"invalid_json" in world.down.sent


def test_who_has_left_expands_no_further() -> None:
    world = World()
    world.down.gone = True
    world, stops = sent(gzip.compress(bytes(2 * FLOOR)), "gzip", world)
    assert stops == ["turn"]
    assert world.call.status == 0
