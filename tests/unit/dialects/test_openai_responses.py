"""Responses: nested usage, background settlement, sequence numbers, items as tools."""

from __future__ import annotations

import json

import httpx
import openai
import pytest

from gateway.call import ToolUse, Usage, UsageSource
from gateway.dialects.identity_text import digest_text
from gateway.dialects.openai_responses import OpenAIResponses
from gateway.errors import BudgetExceeded, StreamTruncated

USAGE = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 5},
    "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 8},
    "total_tokens": 50,
}
COUNTED = Usage(30, 20, 10, 5, 8)


def response(status="completed", **more):
    return {"id": "r1", "object": "response", "model": "gpt-5-2026", "status": status, "output": [], **more}


def event(kind, number, **more):
    return (kind, {"type": kind, "sequence_number": number, **more})


CREATED = event("response.created", 0, response=response("in_progress", usage=None, error=None))
TEXT = [event("response.output_text.delta", n, delta=text) for n, text in ((4, "Hel"), (5, "lo"))]


@pytest.fixture
def responses(talk):
    return talk("openai_responses")


def test_request(responses):
    asked = responses.read(
        {
            "model": "gpt-5",
            "instructions": "be brief",
            "input": [{"role": "user", "content": "a"}, {"type": "function_call_output", "call_id": "c"}],
            "tools": [],
            "stream": True,
            "max_output_tokens": 9,
            "reasoning": {"effort": "low"},
            "previous_response_id": "r0",
        }
    )
    assert (asked.model, asked.stream, asked.max_tokens, len(asked.messages)) == ("gpt-5", True, 9, 2)
    assert asked.system == b'"be brief"'
    assert asked.params == {"reasoning.level": "low", "previous_response.id": "r0"}


def test_a_string_input_is_one_item(responses):
    assert [bytes(item) for item in responses.read({"input": "hi"}).messages] == [b'"hi"']


def test_document(responses):
    answer = responses.answer(
        response(
            usage=USAGE,
            service_tier="priority",
            output=[
                {"type": "reasoning", "id": "x", "summary": [{"type": "summary_text", "text": "hmm"}]},
                {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]},
                {"type": "function_call", "id": "fc1", "call_id": "c1", "name": "f", "arguments": "{}"},
                {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "abc"},
                {"type": "web_search_call", "action": {"type": "search"}},
                {"type": "web_search_call", "action": {"type": "open_page"}},
            ],
        )
    )
    assert answer.usage == Usage(30, 20, 10, 5, 8, {"web_searches": 1})
    assert answer.pricing == {"service_tier": "priority"}
    assert answer.tool_uses == (ToolUse("c1", "f"), ToolUse("c2", "g"))
    assert answer.text_digest == digest_text("Hello")
    assert answer.output_chars == len("hmm") + len("Hello") + 2 + 3
    assert answer.finish_reasons == ("completed",)


def test_a_refusal_is_known_for_one(responses):
    """It ends as any answer does: `completed`."""
    said = {"type": "message", "content": [{"type": "refusal", "refusal": "I cannot"}]}
    whole = responses.answer(response(usage=USAGE, output=[said]))
    delta = event("response.refusal.delta", 4, delta="I cannot")
    streamed = responses.stream(CREATED, delta, event("response.completed", 5, response=response(usage=USAGE))).end()
    for answer in (whole, streamed):
        assert (answer.refused, answer.finish_reasons, answer.output_chars) == (True, ("completed",), 8)
    assert not responses.stream(CREATED, *TEXT).end().refused


def test_stated_searches_count_before_seen_ones(responses):
    output = [{"type": "web_search_call"}]
    answer = responses.answer(response(usage=USAGE, output=output, tool_usage={"web_search": {"num_requests": 4}}))
    assert answer.usage.detail == {"web_searches": 4}
    answer = responses.answer(response(usage=USAGE, output=output, tool_usage={"web_search": {"num_requests": 0}}))
    assert answer.usage.detail == {}


def test_what_is_billed_beside_the_tokens_is_counted(responses):
    kinds = ("image_generation_call", "code_interpreter_call", "image_generation_call", "code_interpreter_call")
    whole = response(usage=USAGE, output=[{"type": kind} for kind in kinds])
    counted = {"image_generations": 2, "code_containers": 1}
    assert responses.answer(whole).usage.detail == counted
    streamed = responses.stream(CREATED, event("response.completed", 5, response=whole)).end()
    assert streamed.usage.detail == counted


def test_incomplete_document_says_why(responses):
    answer = responses.answer(response("incomplete", incomplete_details={"reason": "max_output_tokens"}))
    assert answer.finish_reasons == ("max_output_tokens",)


def test_items_that_a_later_request_may_refer_to(responses):
    """Those that are all output of the model: a search or a remote tool brought more."""
    items = [
        {"type": kind, "id": f"{kind}-1"}
        for kind in ("reasoning", "message", "function_call", "web_search_call", "mcp_call", "compaction")
    ]
    wanted = ("reasoning-1", "message-1", "function_call-1")
    assert responses.answer(response(output=items, usage=USAGE)).items == wanted
    done = [event("response.output_item.done", n, item=item) for n, item in enumerate(items, 1)]
    meter = responses.stream(CREATED, *done, event("response.completed", 9, response=response(output=[], usage=USAGE)))
    assert meter.end().items == wanted


@pytest.mark.parametrize("end", ["completed", "incomplete", "failed"])
def test_stream(responses, end):
    call = {"type": "function_call", "id": "i", "call_id": "c1", "name": "f", "arguments": "{}"}
    meter = responses.stream(
        CREATED,
        event("response.reasoning_summary_text.delta", 3, delta="hmm"),
        *TEXT,
        event("response.output_item.added", 6, item={**call, "arguments": ""}),
        event("response.function_call_arguments.delta", 7, delta="{}"),
        event("response.output_item.done", 8, item=call),
    )
    assert meter.started
    assert not meter.terminal
    error = {"code": "server_error", "message": "m"} if end == "failed" else None
    last = event(f"response.{end}", 9, response=response(end, usage=USAGE, output=[call], error=error))
    meter.feed(f"event: {last[0]}\ndata: {json.dumps(last[1])}\n\n".encode())
    assert meter.terminal
    answer = meter.end()
    assert answer.complete
    assert answer.usage == COUNTED
    assert answer.usage_source is UsageSource.PROVIDER
    assert answer.tool_uses == (ToolUse("c1", "f"),)
    assert (answer.output_chars, answer.text_digest) == (10, digest_text("Hello"))
    assert (answer.model, answer.response_id) == ("gpt-5-2026", "r1")
    assert meter.failed == ("server_error" if end == "failed" else "")


def test_a_stream_without_its_end_is_incomplete(responses):
    answer = responses.stream(CREATED, *TEXT).end()
    assert not answer.complete
    assert answer.usage is None
    assert answer.output_chars == 5


@pytest.mark.parametrize(
    "bad",
    [
        event("error", 3, code="server_error", message="m", param=None),
        ("error", {"type": "error", "error": {"type": "server_error", "message": "m"}}),
        {"type": "error", "sequence_number": 3, "code": "server_error", "message": "m"},
    ],
)
def test_error_events(responses, bad):
    meter = responses.stream(CREATED, *TEXT, bad)
    assert meter.failed == "server_error"
    answer = meter.end()
    assert not answer.complete
    assert answer.error_message == "m"


def test_background_is_settled_by_its_fetch(responses, talk):
    answer = responses.answer(response("queued", background=True, usage=None))
    assert (answer.background, answer.usage) == (True, None)
    fetch = talk("openai_responses", "/v1/responses/r1", "fetch_response")
    answer = fetch.answer(response(background=True, usage=USAGE))
    assert (answer.background, answer.usage) == (False, COUNTED)


def test_fetching_what_was_billed_bills_nothing(talk):
    fetch = talk("openai_responses", "/v1/responses/r1?include=x", "fetch_response")
    call = {"type": "function_call", "call_id": "c1", "name": "f"}
    answer = fetch.answer(response(background=False, usage=USAGE, output=[call]))
    assert (answer.usage, answer.tool_uses) == (None, ())


def test_compaction_is_billed(talk):
    compact = talk("openai_responses", "/openai/v1/responses/compact")
    assert compact.answer({"id": "x", "object": "response.compaction", "usage": USAGE}).usage == COUNTED


def test_an_error_in_a_200(responses):
    answer = responses.answer({"error": {"type": "t", "message": "m"}})
    assert (answer.error_type, answer.error_message) == ("t", "m")


def test_interruption_goes_on_counting(responses):
    meter = responses.stream(CREATED, *TEXT)
    text = responses.dialect.interruption(StreamTruncated("cut"), meter, "q1")
    name, data = text.strip().split(b"\n")
    value = json.loads(data.removeprefix(b"data: "))
    assert name == b"event: response.failed"
    assert (value["type"], value["sequence_number"]) == ("response.failed", 6)
    assert (value["response"]["id"], value["response"]["status"]) == ("r1", "failed")
    assert value["response"]["error"] == {"code": "upstream_truncated", "message": "cut"}


def test_interruption_before_anything_was_said(responses):
    text = responses.dialect.interruption(StreamTruncated("cut"), responses.stream(), "q1")
    events = [json.loads(line.removeprefix(b"data: ")) for line in text.splitlines() if line.startswith(b"data: ")]
    assert [(event["type"], event["sequence_number"]) for event in events] == [
        ("response.created", 0),
        ("response.failed", 1),
    ]
    assert {event["response"]["id"] for event in events} == {"resp_q1"}


def test_the_sdk_sees_the_failure_of_a_stream_that_never_began(responses):
    """As behind pings of the gateway, when the answer fails after all."""
    text = responses.dialect.interruption(StreamTruncated("cut"), responses.stream(), "q1")
    answer = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=text)
    transport = httpx.MockTransport(lambda request: answer)
    client = openai.OpenAI(api_key="x", base_url="http://x/v1", http_client=httpx.Client(transport=transport))
    with client.responses.stream(model="m", input="x") as stream:
        last = list(stream)[-1]
    assert last.type == "response.failed"
    assert last.response.error.message == "cut"


@pytest.mark.parametrize(
    ("frame", "status", "code"),
    [
        (event("error", 0, code="rate_limit_exceeded", message="m"), 429, "rate_limit_exceeded"),
        (("error", {"type": "error", "error": {"type": "server_error", "code": "x"}}), 500, "x"),
        (
            event("response.failed", 0, response=response("failed", error={"code": "server_is_overloaded"})),
            503,
            "server_is_overloaded",
        ),
    ],
)
def test_restate(responses, frame, status, code):
    name, data = frame
    answer = responses.dialect.restate(responses.route, f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())
    assert answer.status == status
    assert json.loads(answer.body)["error"]["code"] == code


def test_a_response_created_is_no_error(responses, frame):
    assert responses.dialect.restate(responses.route, frame(CREATED)) is None


def test_that_a_response_was_created_says_nothing_yet(responses):
    """But to clients that leave and ask for it by its id."""
    begun = (CREATED, ("response.in_progress", {"type": "response.in_progress"}))
    item = ("response.output_item.added", {"type": "response.output_item.added", "item": {"type": "reasoning"}})
    assert not responses.stream(*begun).started
    assert responses.stream(*begun, item).started
    assert responses.stream(*begun, body=b'{"model": "m", "input": "x", "background": true}').started


def test_a_failure_behind_the_beginning_is_restated(responses):
    failed = {"type": "response.failed", "response": {"error": {"code": "context_length_exceeded", "message": "x"}}}
    said = b"".join(
        [f"event: {name}\ndata: {json.dumps(one)}\n\n".encode() for name, one in (CREATED, (failed["type"], failed))]
    )
    answer = responses.dialect.restate(responses.route, said)
    assert answer.status == 400
    assert b"context_length_exceeded" in answer.body


def test_fetching_as_a_stream(talk):
    fetch = talk("openai_responses", "/v1/responses/r1?stream=true&starting_after=4", "fetch_response")
    assert fetch.read(b"").stream


@pytest.mark.parametrize(
    ("name", "value", "final"),
    [
        (b"originator", b"codex_exec", True),
        (b"user-agent", b"codex_cli_rs/0.169.0 (Debian)", True),
        (b"user-agent", b"OpenAI/Python 3.54.0", False),
        (b"originator", b"other", False),
    ],
)
def test_codex_is_told_in_a_stream_what_it_would_try_again_as_a_status(name: bytes, value: bytes, final: bool) -> None:
    answer = OpenAIResponses().last_word(BudgetExceeded("no more than $1.00"), "r1", {name: value})
    if not final:
        assert answer is None
        return
    assert answer is not None
    assert (answer.status, dict(answer.headers)[b"content-type"]) == (200, b"text/event-stream")
    assert dict(answer.headers)[b"x-tollgate-code"] == b"budget_exceeded"
    event, _, data = answer.body.partition(b"\ndata: ")
    told = json.loads(data)
    assert (event, told["type"], told["response"]["status"]) == (b"event: response.failed", "response.failed", "failed")
    assert told["response"]["error"]["code"] == "insufficient_quota"
    assert told["response"]["error"]["message"] == "no more than $1.00"
