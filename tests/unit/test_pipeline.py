"""The path of a call, stage by stage, on doubles. How it ends when killed: tests/pipeline/test_kill_points.py."""

from __future__ import annotations

import pytest

from gateway.errors import BodyTooLarge, Draining, GatewayError
from gateway.journal.convert import outcome_of
from gateway.pipeline import serve
from gateway.testing.doubles import World, ask, drive

JSON = ((b"Content-Type", b"application/json"), (b"X-Up", b"1"))
QUESTION = b'{"model":"gpt-4o","messages":[]}'
ANSWER = b'{"id":"c","model":"gpt-4o","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}'
CHAT = "/v1/chat/completions"


def test_the_stages_run_in_order_and_the_end_is_shown_last() -> None:
    world = World()
    exchange = world.answer(200, JSON, [ANSWER])
    stops = drive(serve(ask(CHAT, QUESTION), world.down, world.gateway()))
    assert stops == ["connect", "head", "read", "read"]
    assert world.names() == ["start", "close exchange", "record", "finish"]
    assert world.down.sent == ANSWER
    assert exchange.closed
    call = world.call
    assert (call.status, call.money.total, outcome_of(call)) == (200, 9 * 10**6, "ok")
    assert call.began < call.upstream_first_byte <= call.upstream_last_byte <= call.ended


def test_an_answer_says_what_it_cost_and_where_it_came_from() -> None:
    world = World()
    world.answer(200, JSON, [ANSWER])
    drive(serve(ask(CHAT, QUESTION), world.down, world.gateway()))
    assert world.down.head is not None
    status, _, block, length = world.down.head
    assert (status, length) == (200, None)
    lines = block.decode().split("\r\n")
    assert lines[:2] == ["Content-Type: application/json", "X-Up: 1"]
    assert dict(line.split(": ") for line in lines[2:-1]) == {
        "x-tollgate-request-id": world.call.id,
        "x-tollgate-run-id": "run-1",
        "x-tollgate-upstream": "openai",
        "x-tollgate-attempts": "1",
        "x-tollgate-cost-usd": "0.000009000000",
        "x-tollgate-usage-source": "provider",
    }


def test_a_request_that_could_not_be_read_is_refused_in_the_words_of_its_path() -> None:
    world = World()
    drive(serve(ask("/v1/messages"), world.down, world.gateway(), BodyTooLarge("too large")))
    assert world.names() == ["start", "record", "finish"]
    assert b'"type":"request_too_large"' in world.down.sent
    assert (world.call.status, outcome_of(world.call)) == (413, "refused")


def test_a_path_without_a_route_is_refused_in_the_words_of_its_headers() -> None:
    world = World()
    request = ask("/v1/../x", b"{}", (b"anthropic-version", b"2023-06-01"))
    drive(serve(request, world.down, world.gateway()))
    assert b'"error_code":"bad_path"' in world.down.sent


@pytest.mark.parametrize("fault", [Draining("ending"), GatewayError("x", code="y")])
def test_a_fault_of_the_gateway_is_answered(fault: GatewayError) -> None:
    world = World()
    world.upstreams.answers.append(fault)
    drive(serve(ask(CHAT, QUESTION), world.down, world.gateway()))
    assert (world.call.fault, world.call.status) == (fault, fault.status)
    assert world.down.endings == ["finish"]


def test_a_bug_tells_the_client_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    drive(serve(ask(CHAT, QUESTION), world.down, world.gateway()), at=1, raising=ZeroDivisionError("inner secret"))
    assert world.call.status == 500
    assert b"inner secret" not in world.down.sent
    assert "inner secret" in caplog.text
    assert world.call.id in caplog.text


def test_calls_have_ids_that_ascend_in_time() -> None:
    world = World()
    world.answer(200, JSON, [ANSWER])
    drive(serve(ask(CHAT, QUESTION), world.down, world.gateway()))
    assert int(world.call.id[:12], 16) == 1_790_000_000_000
    assert len(world.call.id) == 32
