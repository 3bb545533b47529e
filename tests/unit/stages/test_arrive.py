from __future__ import annotations

import gzip

import pytest

from gateway.call import Call
from gateway.errors import BadBody, BadPath, Draining, GatewayError, JournalUnavailable, LoopDetected, UnknownRoute
from gateway.stages.arrive import arrive, asks_to_upgrade, family_of, new_call
from gateway.stages.attempt import spliced
from gateway.stages.unpack import unpack
from gateway.testing.doubles import World, ask, at_once

CHAT = "/v1/chat/completions"
QUESTION = b'{"model":"gpt-4o","stream":true,"messages":[]}'


def arrived(
    path: str, body: bytes, *headers: tuple[bytes, bytes], method: bytes = b"POST", world: World | None = None
) -> Call:
    world = world or World()
    gw = world.gateway()
    call = new_call(ask(path, body, *headers, method=method), gw)
    at_once(unpack(call, world.down, gw))
    arrive(call, gw)
    return call


def test_a_call_knows_where_it_goes_what_it_asks_and_who_asks() -> None:
    call = arrived("/run/r1" + CHAT, QUESTION)
    assert (call.route.template, call.route.upstream, call.route.run_id) == (CHAT, "openai", "r1")
    assert (call.asked.model, call.asked.stream, call.who.agent) == ("gpt-4o", True, "tester")
    assert call.slot >= 0
    assert not call.websocket


@pytest.mark.parametrize(
    ("path", "body", "headers", "fault"),
    [
        ("/v1/%2e/x", b"", [], BadPath),
        ("/nowhere", b"", [], UnknownRoute),
        (CHAT, b"{", [], BadBody),
        (CHAT, QUESTION, [(b"Via", b"1.1 other"), (b"via", b"1.0 x, 1.1 gate-1")], LoopDetected),
        (CHAT, QUESTION, [(b"Content-Encoding", b"gzip")], BadBody),
        (CHAT, gzip.compress(b'{"model":1}', mtime=0), [(b"Content-Encoding", b"gzip")], BadBody),
        (CHAT, QUESTION, [(b"Content-Encoding", b"rot13")], BadBody),
    ],
)
def test_refusals(path: str, body: bytes, headers: list[tuple[bytes, bytes]], fault: type[GatewayError]) -> None:
    world = World()
    with pytest.raises(fault):
        arrived(path, body, *headers, world=world)
    assert not world.journal.slots, "it was never in flight"


def test_another_gateway_on_the_way_is_no_loop() -> None:
    assert arrived(CHAT, QUESTION, (b"Via", b"1.1 tollgate-other")).asked.model == "gpt-4o"


def test_compressed_questions_are_read_and_left_as_they_are() -> None:
    packed = gzip.compress(QUESTION)
    call = arrived(CHAT, packed, (b"Content-Encoding", b"gzip"))
    assert (call.asked.model, call.request.body) == ("gpt-4o", packed)


def test_where_nothing_is_read_any_coding_passes() -> None:
    assert arrived("/v1/files", b"x", (b"Content-Encoding", b"rot13")).request.body == b"x"


def test_a_journal_that_cannot_write_refuses() -> None:
    world = World()
    world.journal.fault = JournalUnavailable()
    with pytest.raises(JournalUnavailable):
        arrived(CHAT, QUESTION, world=world)
    world.journal.fault = Draining()
    with pytest.raises(Draining):
        arrived(CHAT, QUESTION, world=world)


def test_an_alias_is_spliced_into_the_body() -> None:
    world = World()
    world.settings["aliases"] = {"house": ("gpt-4o-mini", "")}
    body = b'{ "temperature" : 1.0,"model" : "house" ,"messages":[]}'
    call = arrived(CHAT, body, world=world)
    assert spliced(body, call.edits) == b'{ "temperature" : 1.0,"model" : "gpt-4o-mini" ,"messages":[]}'
    assert (call.model_sent, call.asked.model, call.notes["alias"]) == ("gpt-4o-mini", "house", "house")


def test_an_alias_of_gemini_stands_in_the_path() -> None:
    world = World()
    world.settings["aliases"] = {"house": ("gemini-2.5-flash", "")}
    call = arrived("/v1beta/models/house:generateContent?x=1", b'{"contents":[]}', world=world)
    assert call.route.path == b"/v1beta/models/gemini-2.5-flash:generateContent?x=1"
    assert not call.edits


@pytest.mark.parametrize(
    ("headers", "family"),
    [
        ({b"anthropic-version": b"x"}, "anthropic"),
        ({b"x-goog-api-key": b"x"}, "gemini"),
        ({b"x-api-key": b"x"}, "anthropic"),
        ({b"x-api-key": b"x", b"authorization": b"y"}, ""),
        ({}, ""),
    ],
)
def test_which_family_the_headers_speak(headers: dict[bytes, bytes], family: str) -> None:
    assert family_of(headers) == family


@pytest.mark.parametrize(
    ("method", "connection", "yes"),
    [
        (b"GET", b"Upgrade", True),
        (b"GET", b"keep-alive, upgrade", True),
        (b"GET", b"keep-alive", False),
        (b"GET", b"upgraded", False),
        (b"POST", b"Upgrade", False),
    ],
)
def test_what_asks_for_a_socket(method: bytes, connection: bytes, yes: bool) -> None:
    request = ask("/v1/responses", b"", (b"Connection", connection), (b"Upgrade", b"websocket"), method=method)
    assert asks_to_upgrade(request) is yes
