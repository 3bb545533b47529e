"""Resolver: who asks, from what is said and from what a request brings along."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.call import Answer, Call, ToolUse
from gateway.config.schema import Identity
from gateway.dialects.items import read_item
from gateway.errors import BadBody, ClientGone
from gateway.policy.identity import Resolver
from gateway.testing.calls import MemoryLinks, arrive, settle
from gateway.testing.wire import Reply, Sent, Truth, Use

SECOND = 10**9
START = 1_790_000_000 * SECOND
LONG = "A long answer that nobody else is likely to have given in exactly these words, whatever was asked before."
ID_A, ID_B = "call_Ab3dEf6hIj9kLm2n", "call_Zy8xWv5uTs2rQp1o"
SDK = {"User-Agent": "OpenAI/Python 3.54.0", "Authorization": "Bearer sk-1", "X-Stainless-Retry-Count": "0"}

Message = dict[str, Any]


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def said(text: str) -> Message:
    return {"role": "assistant", "content": text}


def called(*ids: str) -> Message:
    calls = [{"id": one, "type": "function", "function": {"name": "search", "arguments": "{}"}} for one in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(identifier: str) -> Message:
    return {"role": "tool", "tool_call_id": identifier, "content": "42"}


class Gate:
    """A resolver and a clock; `ask` sends a chat request, `answer` ends it."""

    def __init__(self, links: MemoryLinks | None = None, **config: Any) -> None:
        ids = itertools.count(1)
        self.links = links or MemoryLinks()
        self.resolver = Resolver(Identity(**config), self.links, lambda: f"run-{next(ids)}", b"secret", read_item)
        self.now = START
        self.numbers = itertools.count()

    def ask(
        self,
        *messages: Message,
        headers: dict[str, str] | None = None,
        path: str = "/v1/chat/completions",
        body: dict[str, Any] | None = None,
        client: str = "127.0.0.1:50000",
        **fields: Any,
    ) -> Call:
        self.now += SECOND
        content = body if body is not None else {"model": "m", "messages": list(messages), **fields}
        pairs = {**SDK, **(headers or {})}
        raw = [(name.encode(), value.encode("utf-8")) for name, value in pairs.items() if value]
        sent = Sent(path, raw, json.dumps(content).encode(), client, Truth("", "", False), [])
        call = arrive(sent, self.now, next(self.numbers))
        call.who, call.tools = self.resolver.identify(call)
        return call

    def answer(self, call: Call, text: str = "", *ids: str, status: int = 200, response_id: str = "") -> Call:
        settle(call, Reply(text, [Use(one, "search") for one in ids], response_id, status), SECOND // 2)
        self.resolver.learn(call)
        self.now += SECOND
        return call

    def asked_and_answered(self, text: str, *messages: Message, **how: Any) -> Call:
        return self.answer(self.ask(*messages, **how), text)


@pytest.fixture
def gate() -> Gate:
    return Gate()


def test_a_first_request_begins_a_run(gate: Gate) -> None:
    who = gate.ask(user("hello")).who
    assert (who.run_id, who.run_source, who.step, who.conversation_id) == ("run-1", "new", 1, "")
    assert who.run_confidence < 1
    assert who.tenant == "default"


def test_an_equal_first_request_begins_another_run(gate: Gate) -> None:
    runs = [gate.asked_and_answered("Hi", user("hello")).who.run_id for _ in range(3)]
    assert runs == ["run-1", "run-2", "run-3"]


def test_history_with_our_answer_continues_the_run(gate: Gate) -> None:
    gate.asked_and_answered("Hi", user("hello"))
    second = gate.asked_and_answered("Fine", user("hello"), said("Hi"), user("how are you?"))
    third = gate.ask(user("hello"), said("Hi"), user("how are you?"), said("Fine"), user("good"))
    assert [(c.who.run_id, c.who.step, c.who.run_source) for c in (second, third)] == [
        ("run-1", 2, "prefix"),
        ("run-1", 3, "prefix"),
    ]
    assert second.who.conversation_id == "", "a derived run is no conversation id"


def test_white_space_in_the_quoted_answer_does_not_matter(gate: Gate) -> None:
    gate.asked_and_answered("  Hi\nthere ", user("hello"))
    assert gate.ask(user("hello"), said("Hi there"), user("?")).who.run_id == "run-1"


def test_an_answer_that_nobody_gave_begins_a_run(gate: Gate) -> None:
    gate.asked_and_answered("Hi", user("hello"))
    assert gate.ask(user("hello"), said("Good morning"), user("?")).who.run_source == "new"


def test_equal_prompts_with_different_answers_stay_apart(gate: Gate) -> None:
    one, two = gate.ask(user("hello")), gate.ask(user("hello"))
    gate.answer(one, "Hi")
    gate.answer(two, "Hey")
    assert gate.ask(user("hello"), said("Hey"), user("?")).who.run_id == two.who.run_id
    assert gate.ask(user("hello"), said("Hi"), user("?")).who.run_id == one.who.run_id


def test_equal_runs_with_equal_answers_get_one_chain_each(gate: Gate) -> None:
    """Twenty agents that cannot be told apart still come out as twenty runs of three steps."""
    history: list[Message] = [user("hello")]
    for step in range(1, 4):
        calls = [gate.ask(*history) for _ in range(20)]
        assert len({call.who.run_id for call in calls}) == 20
        assert {call.who.step for call in calls} == {step}
        for call in calls:
            gate.answer(call, f"answer {step}")
        history += [said(f"answer {step}"), user("next")]


def test_equal_runs_on_connections_of_their_own_keep_their_chain(gate: Gate) -> None:
    clients = [f"127.0.0.1:{40_000 + n}" for n in range(9)]
    runs = {client: gate.asked_and_answered("Hi", user("hello"), client=client).who.run_id for client in clients}
    for client in reversed(clients):
        assert gate.ask(user("hello"), said("Hi"), user("?"), client=client).who.run_id == runs[client]


def test_a_run_that_was_given_up_does_not_swallow_the_next(gate: Gate) -> None:
    gate.asked_and_answered("Hi", user("hello"))
    gate.now += 300 * SECOND
    second = gate.asked_and_answered("Hi", user("hello"))
    assert gate.ask(user("hello"), said("Hi"), user("?")).who.run_id == second.who.run_id


def test_tool_results_continue_the_run_whatever_became_of_the_history(gate: Gate) -> None:
    gate.answer(gate.ask(user("hello")), "", ID_A)
    call = gate.ask(user("summary of before"), called(ID_A), result(ID_A))
    assert (call.who.run_id, call.who.run_source, call.who.step) == ("run-1", "tool_call", 2)


def test_repeated_tool_ids_are_no_evidence_by_themselves(gate: Gate) -> None:
    for _ in range(2):
        gate.answer(gate.ask(user("hello")), "", "call_1")
    assert gate.ask(user("something else"), called("call_1"), result("call_1")).who.run_source == "new"


def test_repeated_tool_ids_within_the_exact_history_are(gate: Gate) -> None:
    one = gate.answer(gate.ask(user("one")), "", "call_1")
    two = gate.answer(gate.ask(user("two")), "", "call_1")
    assert gate.ask(user("one"), called("call_1"), result("call_1")).who.run_id == one.who.run_id
    assert gate.ask(user("two"), called("call_1"), result("call_1")).who.run_id == two.who.run_id


def test_ids_that_look_random_but_repeat_are_seen_through(gate: Gate) -> None:
    one = gate.answer(gate.ask(user("one")), "", ID_A)
    two = gate.answer(gate.ask(user("two")), "", ID_A)
    assert gate.ask(user("two"), called(ID_A), result(ID_A)).who.run_id == two.who.run_id
    assert gate.ask(user("one"), called(ID_A), result(ID_A)).who.run_id == one.who.run_id


def test_a_long_answer_survives_edits_of_what_stands_before(gate: Gate) -> None:
    gate.asked_and_answered(LONG, {"role": "system", "content": "prompt"}, user("hello with documents"))
    call = gate.ask({"role": "system", "content": "prompt"}, user("hello"), said(LONG), user("?"))
    assert (call.who.run_id, call.who.run_source) == ("run-1", "prefix")
    assert call.who.run_confidence < 0.9


def test_a_long_answer_given_to_two_is_no_evidence_after_edits(gate: Gate) -> None:
    for n in range(2):
        gate.asked_and_answered(LONG, user(f"hello {n}"))
    assert gate.ask(user("hello"), said(LONG), user("?")).who.run_source == "new"


def test_an_older_turn_is_evidence_when_the_last_is_unknown(gate: Gate) -> None:
    gate.asked_and_answered("Hi", user("hello"))
    call = gate.ask(user("hello"), said("Hi"), user("a"), said("made up by the client"), user("b"))
    assert (call.who.run_id, call.who.run_confidence) == ("run-1", 0.8)


def test_moved_cache_marks_are_not_part_of_the_history(gate: Gate) -> None:
    def message(text: str, *, marked: bool) -> Message:
        block: dict[str, Any] = {"type": "text", "text": text}
        return {"role": "user", "content": [{**block, "cache_control": {"type": "ephemeral"}} if marked else block]}

    path, key = "/v1/messages", {"x-api-key": "k", "Authorization": ""}
    gate.asked_and_answered("Hi", message("hello", marked=True), path=path, headers=key)
    call = gate.ask(message("hello", marked=False), said("Hi"), message("?", marked=True), path=path, headers=key)
    assert (call.who.run_id, call.who.run_confidence) == ("run-1", 0.97)


def test_a_prompt_with_a_clock_does_not_break_the_chain(gate: Gate) -> None:
    gate.asked_and_answered("Hi", {"role": "system", "content": "It is 10:01."}, user("hello"))
    call = gate.ask({"role": "system", "content": "It is 10:02."}, user("hello"), said("Hi"), user("?"))
    assert call.who.run_id == "run-1"


def test_a_silent_run_is_over() -> None:
    gate = Gate(run_idle_seconds=60)
    gate.asked_and_answered("Hi", user("hello"))
    gate.now += 61 * SECOND
    assert gate.ask(user("hello"), said("Hi"), user("?")).who.run_source == "new"


def test_tenants_and_keys_share_no_evidence() -> None:
    gate = Gate(tenant_header="X-Tenant")
    gate.answer(gate.ask(user("hello"), headers={"X-Tenant": "acme"}), "", ID_A)
    follow = (user("hello"), called(ID_A), result(ID_A))
    assert gate.ask(*follow, headers={"X-Tenant": "other"}).who.run_source == "new"
    assert gate.ask(*follow, headers={"X-Tenant": "acme", "Authorization": "Bearer sk-2"}).who.run_source == "new"
    joined = gate.ask(*follow, headers={"X-Tenant": "acme"})
    assert (joined.who.run_id, joined.who.tenant, len(joined.tools)) == ("run-1", "acme", 1)


def test_another_secret_finds_nothing() -> None:
    first = Gate()
    first.asked_and_answered("Hi", user("hello"))
    second = Gate(first.links)
    second.resolver = Resolver(Identity(), first.links, lambda: "run-x", b"other", read_item)
    assert second.ask(user("hello"), said("Hi"), user("?")).who.run_id == "run-x"


def test_nothing_of_credentials_or_content_is_stored(gate: Gate) -> None:
    gate.asked_and_answered("Hi", user("hello"), headers={"Authorization": "Bearer sk-very-secret"})
    stored = b"".join(key + value for key, value in gate.links.values.items())
    assert b"secret" not in stored
    assert b"hello" not in stored


# -- retries


def test_a_retry_that_the_client_counts_is_the_same_step(gate: Gate) -> None:
    first = gate.answer(gate.ask(user("hello")), status=503)
    again = gate.ask(user("hello"), headers={"X-Stainless-Retry-Count": "1"})
    assert (again.who.run_id, again.who.step) == (first.who.run_id, 1)


def test_a_first_try_is_no_retry_of_somebody_else_s_failure(gate: Gate) -> None:
    gate.answer(gate.ask(user("hello")), status=503)
    assert gate.ask(user("hello")).who.run_id == "run-2"


def test_two_failures_get_one_retry_each(gate: Gate) -> None:
    runs = {gate.answer(gate.ask(user("hello")), status=429).who.run_id for _ in range(2)}
    again = [gate.ask(user("hello"), headers={"X-Stainless-Retry-Count": "1"}).who.run_id for _ in range(2)]
    assert set(again) == runs


def test_a_client_that_does_not_count_repeats_a_failed_request_soon(gate: Gate) -> None:
    silent = {"X-Stainless-Retry-Count": ""}
    gate.answer(gate.ask(user("hello"), headers=silent), status=500)
    assert gate.ask(user("hello"), headers=silent).who.run_id == "run-1"
    gate.now += 300 * SECOND
    assert gate.ask(user("hello"), headers=silent).who.run_id == "run-2"


def test_the_same_request_after_a_success_is_a_new_run(gate: Gate) -> None:
    silent = {"X-Stainless-Retry-Count": ""}
    gate.asked_and_answered("Hi", user("hello"), headers=silent)
    assert gate.ask(user("hello"), headers=silent).who.run_id == "run-2"


def test_an_idempotency_key_is_one_step(gate: Gate) -> None:
    key = {"Idempotency-Key": "abc-1"}
    first = gate.ask(user("hello"), headers=key)
    assert gate.ask(user("hello"), headers=key).who.run_id == first.who.run_id
    assert gate.ask(user("hello"), headers=key).who.step == 1
    assert gate.ask(user("hello"), headers={"Idempotency-Key": "abc-2"}).who.run_id != first.who.run_id


def test_a_call_that_was_cancelled_may_be_repeated(gate: Gate) -> None:
    call = gate.ask(user("hello"))
    call.fault, call.status = ClientGone(), 200
    gate.resolver.learn(call)
    assert gate.ask(user("hello"), headers={"X-Stainless-Retry-Count": "1"}).who.run_id == call.who.run_id


def test_retries_of_a_stated_run_are_no_steps(gate: Gate) -> None:
    run = {"x-tollgate-run-id": "job-7"}
    gate.answer(gate.ask(user("hello"), headers=run), status=500)
    again = gate.answer(gate.ask(user("hello"), headers={**run, "X-Stainless-Retry-Count": "1"}), "Hi")
    assert again.who.step == 1
    assert gate.ask(user("next"), headers=run).who.step == 2


# -- responses API, embeddings, traces


def test_previous_response_id_continues_the_run(gate: Gate) -> None:
    path = "/v1/responses"
    first = gate.answer(gate.ask(path=path, body={"model": "m", "input": "hello"}), "Hi", response_id="resp_1234567")
    body = {"model": "m", "input": "more", "previous_response_id": "resp_1234567"}
    second = gate.ask(path=path, body=body)
    assert (second.who.run_id, second.who.run_source, second.who.step) == (first.who.run_id, "previous_response", 2)
    body["previous_response_id"] = "resp_unknown"
    assert gate.ask(path=path, body=body).who.run_source == "new"


def test_tool_outputs_alone_continue_the_run(gate: Gate) -> None:
    path = "/v1/responses"
    gate.answer(gate.ask(path=path, body={"model": "m", "input": "hello"}), "", ID_A, response_id="resp_1234567")
    item = {"type": "function_call_output", "call_id": ID_A, "output": "42"}
    call = gate.ask(path=path, body={"model": "m", "input": [item]})
    assert (call.who.run_id, call.who.run_source, [tool.id for tool in call.tools]) == ("run-1", "tool_call", [ID_A])


def test_a_trace_joins_calls_that_nothing_else_joins(gate: Gate) -> None:
    parent = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    first = gate.asked_and_answered("Hi", user("one"), headers=parent)
    second = gate.ask(user("two"), headers={"traceparent": f"00-{'a' * 32}-{'c' * 16}-00"})
    assert (second.who.run_id, second.who.run_source, second.who.step) == (first.who.run_id, "trace", 2)
    assert gate.ask(user("two"), headers={"traceparent": f"00-{'d' * 32}-{'c' * 16}-00"}).who.run_source == "new"


def test_calls_without_tokens_begin_no_run_and_count_no_step(gate: Gate) -> None:
    count = gate.ask(user("hello"), path="/v1/messages/count_tokens", headers={"x-api-key": "k"})
    assert (count.who.run_id, count.who.step) == ("", 0)
    run = {"x-tollgate-run-id": "job-7"}
    gate.ask(user("hello"), path="/v1/messages/count_tokens", headers=run)
    assert gate.ask(user("hello"), headers=run).who.step == 1


def test_an_embedding_is_a_step(gate: Gate) -> None:
    run = {"x-tollgate-run-id": "job-7"}
    gate.ask(user("hello"), headers=run)
    assert gate.ask(body={"model": "e", "input": "text"}, path="/v1/embeddings", headers=run).who.step == 2


# -- never raises, bounded


def test_no_answer_and_no_question_are_survived(gate: Gate) -> None:
    call = gate.ask(user("hello"))
    gate.resolver.learn(call)
    gate.resolver.learn(call)
    stranger = gate.ask(user("hello"))
    Gate().resolver.learn(stranger)


def test_what_is_known_of_calls_under_way_is_bounded(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.policy.identity.OPEN_LIMIT", 10)
    calls = [gate.ask(user(f"hello {n}")) for n in range(25)]
    assert len(gate.resolver._open) == 10
    for call in calls:
        gate.answer(call, "Hi")
    assert gate.resolver._open == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
KEYS = ["messages", "input", "contents", "metadata", "user", "conversation", "previous_response_id", "system", "tools"]
NAMES = [
    *("authorization", "baggage", "traceparent", "x-codex-turn-metadata", "originator", "session-id", "user-agent"),
    *("x-claude-code-prev-tool-durations", "x-tollgate-run-id", "x-portkey-metadata", "idempotency-key"),
    "x-acme-session-id",
    *("x-stainless-retry-count", "x-parent-session-id", "x-session-id", "x-tollgate-step", "helicone-property-agent"),
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    fields=st.dictionaries(st.sampled_from(KEYS), json_values, max_size=5),
    headers=st.lists(st.tuples(st.sampled_from(NAMES), st.binary(max_size=60)), max_size=6),
    path=st.sampled_from(
        ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1beta/models/g:generateContent", "/v1/embeddings"]
    ),
    text=st.text(max_size=30),
    tool=st.tuples(st.text(max_size=10), st.text(max_size=10)),
)
def test_whatever_comes_is_answered(
    fields: dict[str, Any], headers: list[tuple[str, bytes]], path: str, text: str, tool: tuple[str, str]
) -> None:
    gate = Gate()
    raw = [(name.encode(), value) for name, value in headers]
    sent = Sent(path, raw, json.dumps(fields).encode(), "", Truth("", "", False), [])
    for number in range(2):
        try:
            call = arrive(sent, START + number, number)
        except BadBody:
            return
        who, tools = gate.resolver.identify(call)
        assert who.run_id
        assert who.step >= 0
        assert tools == [] or tools[0].id
        call.who = who
        call.status = 200
        call.answer = Answer(text_digest=text.encode()[:16], sample=text * 9, tool_uses=(ToolUse(*tool),))
        gate.resolver.learn(call)


def broken_tables() -> Iterator[MemoryLinks]:
    """A table whose memory was overwritten with anything."""
    random = Random(3)
    for size in (0, 1, 8, 27, 28, 29, 195, 196, 200):
        links = MemoryLinks()
        links.get = lambda key, size=size: random.randbytes(size)  # type: ignore[method-assign,misc]
        yield links


@pytest.mark.parametrize("links", list(broken_tables()))
def test_a_table_full_of_nonsense_is_survived(links: MemoryLinks) -> None:
    gate = Gate(links)
    for _ in range(5):
        gate.answer(gate.ask(user("a"), called(ID_A), result(ID_A)), LONG, ID_B)
        gate.answer(gate.ask(user("a"), headers={"X-Stainless-Retry-Count": "2", "Idempotency-Key": "k"}), status=500)
        gate.ask(user("a"), headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "x-parent-session-id": "p-1234567"})
