from __future__ import annotations

import pytest

from gateway.call import Call, Edit
from gateway.errors import BadAnswer, ClientGone, GatewayError, UnknownRoute, UpstreamReset, UpstreamTimeout
from gateway.pipeline import serve
from gateway.ports import Exchange
from gateway.stages.arrive import arrive, new_call
from gateway.stages.attempt import ERROR_BODY_LIMIT, STALE_NS, attempt, spliced
from gateway.testing.doubles import MemoryExchange, World, ask, drive

CHAT = "/v1/chat/completions"
STREAM = b'{"model":"gpt-4o","stream":true,"messages":[]}'
INJECTED = b'{"stream_options":{"include_usage":true},"model":"gpt-4o","stream":true,"messages":[]}'
REJECTION = b'{"error":{"message":"stream_options?"}}'


def made(world: World, body: bytes = STREAM, path: str = CHAT) -> Call:
    gw = world.gateway()
    call = new_call(ask(path, body), gw)
    arrive(call, gw)
    return call


def run(world: World, call: Call) -> MemoryExchange:
    found: list[Exchange] = []

    async def work() -> None:
        found.append(await attempt(call, world.down, world.gateway()))

    drive(work())
    (exchange,) = found
    assert isinstance(exchange, MemoryExchange)
    return exchange


def body_of(sent: bytes) -> bytes:
    return sent.partition(b"\r\n\r\n")[2]


def test_edits_change_nothing_else() -> None:
    assert spliced(b"abcdef", (Edit(4, 5, b"E"), Edit(0, 1, b"AA"), Edit(2, 2, b"+"))) == b"AAb+cdEf"
    assert spliced(b"n=900", (Edit(2, 5, b"50"), Edit(2, 5, b"70"))) == b"n=50"  # both lower one value


def test_usage_is_asked_for_in_streams_that_would_not_carry_it() -> None:
    world = World()
    world.answer(200)
    call = made(world)
    run(world, call)
    assert body_of(world.upstreams.sent[0]) == INJECTED
    assert call.asked.injected
    assert b"\r\nContent-Length: %d\r\n" % len(INJECTED) in world.upstreams.sent[0]
    assert b"\r\naccept-encoding: identity\r\n" in world.upstreams.sent[0]


@pytest.mark.parametrize(
    ("body", "spec", "refused"),
    [
        (STREAM.replace(b"true", b"false"), {}, False),
        (b'{"model":"x","stream":true,"stream_options":{"include_usage":true}}', {}, False),
        (STREAM, {"inject_usage": False}, False),
        (STREAM, {}, True),
    ],
)
def test_else_the_body_goes_as_it_came(body: bytes, spec: dict[str, bool], refused: bool) -> None:
    world = World(**spec)
    if refused:
        world.learned.refuses_injection.add("openai")
    world.answer(200)
    call = made(world, body)
    run(world, call)
    assert body_of(world.upstreams.sent[0]) == body
    assert not call.asked.injected


@pytest.mark.parametrize("status", [400, 422])
def test_an_upstream_that_refuses_the_question_about_usage_is_asked_without(status: int) -> None:
    world = World()
    first = world.answer(status, (), [REJECTION[:9], REJECTION[9:]])
    second = world.answer(200)
    call = made(world)
    assert run(world, call) is second
    assert [body_of(sent) for sent in world.upstreams.sent] == [INJECTED, STREAM]
    assert first.closed
    assert world.learned.refuses_injection == {"openai"}
    assert [one.status for one in call.attempts] == [status, 200]
    assert (call.asked.injected, call.edits) == (False, ())


def test_any_other_refusal_can_be_read_from_its_beginning() -> None:
    world = World()
    world.answer(400, (), [b'{"error":', b'"no"}'])
    call = made(world)
    exchange = run(world, call)
    assert exchange.pieces == [b'{"error":"no"}']
    assert not exchange.closed
    assert not world.learned.refuses_injection


def test_no_error_is_read_without_end_to_see_what_it_means() -> None:
    world = World()
    pieces = [b"x" * ERROR_BODY_LIMIT, b"x", b"rest"]
    world.answer(400, (), pieces)
    exchange = run(world, made(world))
    assert [len(piece) for piece in exchange.pieces if isinstance(piece, bytes)] == [ERROR_BODY_LIMIT + 1, 4]


def test_a_protocol_that_nobody_asked_for_is_no_answer() -> None:
    world = World()
    exchange = world.answer(101, ((b"Upgrade", b"h2c"),))
    call = made(world)
    with pytest.raises(BadAnswer):
        run(world, call)
    assert exchange.closed
    assert isinstance(call.attempts[0].fault, BadAnswer)


def test_a_fault_is_noted_with_its_attempt() -> None:
    world = World()
    fault = UpstreamTimeout("late", code="upstream_first_byte_timeout")
    world.upstreams.answers.append(fault)
    call = made(world)
    with pytest.raises(UpstreamTimeout):
        run(world, call)
    (tried,) = call.attempts
    assert (tried.fault, tried.status, tried.sent) == (fault, 0, True)
    assert tried.ended > tried.began


def test_what_fails_for_a_client_that_left_is_its_leaving() -> None:
    world = World(drain=True)
    world.down.gone = True
    world.upstreams.answers.append(UpstreamTimeout("late"))
    with pytest.raises(ClientGone):
        run(world, made(world))


def test_an_upstream_that_is_gone_from_the_configuration() -> None:
    world = World()
    call = made(world)
    del world.specs["openai"]
    with pytest.raises(UnknownRoute):
        run(world, call)
    with pytest.raises(GatewayError):
        run(world, call)


@pytest.mark.parametrize(
    ("kept", "fault", "attempts"),
    [
        (True, UpstreamReset("closed"), 2),
        (False, UpstreamReset("closed"), 1),  # a fresh connection: the upstream may have read the request
        (True, UpstreamReset("cut", code="upstream_cut"), 1),  # the answer had begun
        (True, UpstreamTimeout("late"), 1),
    ],
)
def test_a_kept_connection_that_dies_in_the_moment_of_its_use_is_replaced_once(
    kept: bool, fault: GatewayError, attempts: int
) -> None:
    world = World()
    world.upstreams.kept = kept
    world.upstreams.answers += [fault]
    world.answer(200, ((b"Content-Type", b"application/json"),), [b"{}"])
    drive(serve(ask("/v1/chat/completions", b'{"model":"m","messages":[]}'), world.down, world.gateway()))
    assert [each.reused for each in world.call.attempts] == [True, False][:attempts] if kept else [False]
    assert len(world.upstreams.sent) == attempts
    assert (world.call.status == 200) == (attempts == 2)


def test_it_is_replaced_once_only_and_not_when_it_took_its_time() -> None:
    world = World()
    world.upstreams.kept = True
    world.upstreams.answers += [UpstreamReset("closed"), UpstreamReset("closed again")]
    drive(serve(ask("/v1/chat/completions", b'{"model":"m","messages":[]}'), world.down, world.gateway()))
    assert (len(world.upstreams.sent), world.call.status) == (2, 502)
    slow = World()
    slow.upstreams.kept, slow.step = True, STALE_NS + 1
    slow.upstreams.answers += [UpstreamReset("closed")]
    drive(serve(ask("/v1/chat/completions", b'{"model":"m","messages":[]}'), slow.down, slow.gateway()))
    assert (len(slow.upstreams.sent), slow.call.status) == (1, 502)


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        (b'"hi"', 0),  # no model caches so little
        (b'"%b"' % (b"x" * 1900), 0),
        (b'"%b"' % (b"x" * 2048), 2),
        (b'[{"type":"document","source":{"type":"url","url":"https://e.example/a.pdf"}}]', 2),  # as long as it may be
    ],
)
def test_marks_are_set_where_something_may_be_cached(text: bytes, marks: int) -> None:
    world = World()
    world.settings["mark_prefixes"] = True
    world.answer(200)
    body = b'{"model":"m","tools":[{"name":"t"}],"messages":[{"role":"user","content":%b}]}' % text
    call = made(world, body, "/v1/messages")
    run(world, call)
    sent = body_of(world.upstreams.sent[0])
    assert sent.count(b'"cache_control"') == marks
    assert (sent == body) == (marks == 0)
    assert call.notes.get("cache_marks", "0") == str(marks)
