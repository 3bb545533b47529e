"""Answers to similar questions on the path of a call: when the matcher is asked, what of its word is believed, what it
is told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec import structs

from gateway.call import Who
from gateway.config.schema import Cache, ExactCache, SemanticCache
from gateway.config.schema_semantic import SemanticRule
from gateway.errors import ClientGone, NotCached
from gateway.journal.convert import Converter
from gateway.pipeline import serve
from gateway.ports import Match
from gateway.testing.doubles import MemoryDown, World, ask, drive
from gateway.testing.memory_cache import cached
from gateway.testing.memory_matcher import MemoryMatcher

CHAT = "/v1/chat/completions"
JSON = ((b"Content-Type", b"application/json"),)
SSE = ((b"Content-Type", b"text/event-stream"),)
FIRST = "How tall is the old stone tower?"
LIKE = "What height has the old stone tower?"
EXACT = ExactCache(enabled=True, sampled="all", tools=True)
CHUNK = b'data: {"id":"c","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"40 m"}}]}\n\n'
STOP = b'data: {"id":"c","model":"gpt-4o","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}\n\n'
STREAM = [CHUNK, STOP, USAGE, b"data: [DONE]\n\n"]


def said(text: str = "40 m", **message: Any) -> bytes:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    reason = "tool_calls" if "tool_calls" in message else "stop"
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": reason}
    return json.dumps({"id": "c", "model": "gpt-4o", "choices": [choice], "usage": usage}).encode()


class Gate:
    def __init__(self, **semantic: Any) -> None:
        self.world = World(auth=((b"authorization", b"paid"),))
        self.matcher = MemoryMatcher()
        settings = SemanticCache(**{"mode": "serve", **semantic})
        tier = self.matcher.tier(settings)
        self.store, _ = cached(self.world, Cache(exact=EXACT, semantic=settings), tier=tier)
        self.settings = dict(self.world.settings)
        self.head = ""

    def prepare(self, body: bytes | list[bytes] | None = None) -> None:
        pieces = body if isinstance(body, list) else [said() if body is None else body]
        self.world.answer(200, SSE if isinstance(body, list) else JSON, pieces)

    def ask(self, text: str, *headers: tuple[bytes, bytes], checks: int = 0, gone: bool = False, **body: Any) -> str:
        question = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **body}
        down = self.down = MemoryDown(self.world.log)
        down.gone = gone
        self.world.settings = dict(self.settings)
        request = structs.replace(ask(CHAT, json.dumps(question).encode(), *headers), checks=checks)
        drive(serve(request, down, self.world.gateway()))
        self.head = down.head[2].decode() if down.head is not None else ""
        lines = [line.partition(": ") for line in self.head.split("\r\n")]
        return next((value for name, _, value in lines if name == "x-tollgate-cache"), "")

    @property
    def call(self) -> Any:
        return self.world.journal.records[-1]

    @property
    def sent(self) -> int:
        return len(self.world.upstreams.sent)


def taught(**semantic: Any) -> Gate:
    """A gate that has learned one answer, and a matcher that gives it to everybody."""
    gate = Gate(**semantic)
    gate.prepare()
    assert gate.ask(FIRST) == "miss"
    gate.matcher.latest()
    return gate


# -- hits -------------------------------------------------------------------------------------------------------------


def test_a_similar_question_is_given_the_stored_answer_and_costs_nothing() -> None:
    gate = taught()
    paid = gate.call.money.total
    assert gate.ask(LIKE) == "semantic"
    assert gate.down.sent == said()
    assert "x-tollgate-cache-score: 0.9900\r\n" in gate.head
    assert "x-tollgate-usage-source: cached\r\n" in gate.head
    call = gate.call
    record = Converter(0).record_of(call)
    assert (record.cache, record.cost, record.saved, record.usage_source) == ("semantic", 0, paid, "cached")
    assert record.notes["similar"] == "hit"
    assert record.notes["similar_score"] == "0.99000"
    assert int(record.notes["similar_ns"]) > 0
    assert record.cache_entry in gate.head
    assert gate.sent == 1
    assert gate.world.names()[-2:] == ["record", "finish"]


def test_it_is_given_in_either_shape() -> None:
    gate = taught()
    assert gate.ask(LIKE, stream=True) == "semantic"
    assert gate.down.sent.endswith(b"data: [DONE]\n\n")
    assert b"40 m" in gate.down.sent
    gate = Gate()
    gate.prepare(STREAM)
    assert gate.ask(FIRST, stream=True) == "miss"
    assert gate.matcher.lessons[-1].answer == "40 m"
    gate.matcher.latest()
    assert gate.ask(LIKE) == "semantic"
    assert json.loads(gate.down.sent)["choices"][0]["message"]["content"] == "40 m"


def test_an_equal_question_never_reaches_the_matcher() -> None:
    gate = taught()
    gate.matcher.inquiries.clear()
    assert gate.ask(FIRST) == "exact"
    assert gate.matcher.inquiries == []
    assert "similar" not in gate.call.notes


# -- what of the matcher's word is believed ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "headers"),
    [
        ({"seed": 1}, ()),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, ()),
        ({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": LIKE}]}, ()),
        ({"user": "somebody else"}, ()),
        ({"model": "gpt-4o-mini"}, ()),
        ({"response_format": {"type": "json_object"}}, ()),
        ({}, ((b"openai-beta", b"x=v1"),)),
    ],
)
def test_an_answer_of_another_partition_is_never_given_whatever_the_matcher_says(more: Any, headers: Any) -> None:
    gate = taught()
    gate.prepare()
    assert gate.ask(LIKE, *headers, **more) == "miss"
    assert gate.call.notes["similar"] == "gone"
    assert gate.sent == 2


def test_nor_to_another_tenant(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = taught()
    monkeypatch.setattr(gate.world.identity, "identify", lambda call: (Who(tenant="other", agent="tester"), []))
    gate.prepare()
    assert gate.ask(LIKE) == "miss"
    assert gate.matcher.inquiries[0].partition != gate.matcher.inquiries[1].partition
    assert gate.matcher.inquiries[1].topic.scope == "other/tester/gpt-4o"
    # not even where keys were to collide
    key = gate.matcher.lessons[0].key
    stored = gate.store.entries[key]
    gate.store.entries[key] = structs.replace(stored, partition=gate.matcher.inquiries[1].partition)
    gate.prepare()
    assert gate.ask("Which height has that old stone tower?") == "miss"


def test_an_answer_stored_without_a_partition_is_given_to_nobody() -> None:
    gate = taught()
    key = gate.matcher.lessons[0].key
    gate.store.entries[key] = structs.replace(gate.store.entries[key], partition=b"")
    gate.prepare()
    assert gate.ask(LIKE) == "miss"


def test_answers_that_are_gone_too_old_or_call_tools_are_not_given() -> None:
    gate = taught()
    key = gate.matcher.lessons[0].key
    stored = gate.store.entries[key]
    gate.store.entries[key] = structs.replace(stored, created=stored.created - 901 * 10**9)
    gate.prepare()
    assert gate.ask(LIKE) == "miss"
    tools = [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    gate = Gate()
    gate.prepare(said("", tool_calls=tools))
    assert gate.ask(FIRST) == "miss"
    assert gate.matcher.lessons == [], "an answer that calls tools is for equal questions alone"
    gate = taught()
    gate.store.clear()
    gate.prepare()
    assert gate.ask(LIKE) == "miss"
    assert gate.call.notes["similar"] == "gone"


# -- when it is asked -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "body", "why"),
    [
        (LIKE, {"temperature": 0.7, "seed": 1}, "temperature"),
        (LIKE, {"n": 2}, "choices"),
        (LIKE, {"logprobs": True}, "logprobs"),
        (LIKE, {"web_search_options": {}}, "server_tools"),
        (LIKE, {"store": True}, "stored"),
        ("What height has the old stone tower today?", {}, "time"),
        ("Tell me the height of the stone tower again", {}, "refers_back"),
        ("Why so?", {}, "few_words"),
        ("word " * 1000, {}, "length"),
        ("Send the stone tower plans to ann@example.org", {}, "personal"),
        ("", {"messages": [{"role": "user", "content": "x"}, {"role": "tool", "content": "y"}]}, "tools"),
        ("", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "media"),
    ],
)
def test_where_words_do_not_say_it_all_nobody_is_asked(text: str, body: Any, why: str) -> None:
    gate = taught()
    before = len(gate.matcher.inquiries)
    gate.prepare()
    assert gate.ask(text, **body) == "miss"
    assert gate.call.notes["similar"] == why
    assert len(gate.matcher.inquiries) == before
    assert len(gate.matcher.lessons) == 1


def test_rules_decide_by_mode() -> None:
    gate = taught(mode="off", rules=(SemanticRule(agent="tester", mode="serve", target=0.05),))
    assert gate.matcher.inquiries[0].topic.target == 0.05
    assert gate.ask(LIKE) == "semantic"
    gate = Gate(rules=(SemanticRule(agent="tester", mode="off"),))
    gate.prepare()
    assert gate.ask(FIRST) == "miss"
    assert (gate.matcher.inquiries, gate.matcher.lessons) == ([], [])
    assert "similar" not in gate.call.notes
    gate = Gate(mode="shadow")
    gate.prepare()
    assert gate.ask(FIRST) == "miss"
    assert not gate.matcher.inquiries[0].topic.serve


def test_clients_may_decline() -> None:
    gate = taught()
    gate.prepare()
    assert gate.ask(LIKE, (b"x-tollgate-cache", b"exact")) == "miss"
    gate.prepare()
    assert gate.ask("Which height has that old stone tower?", (b"cache-control", b"no-cache")) == "bypass"
    gate.prepare()
    assert gate.ask(LIKE + "!", (b"cache-control", b"no-store")) == "bypass"
    assert len(gate.matcher.inquiries) == 1
    assert len(gate.matcher.lessons) == 3, "what is kept is told"


def test_who_wants_nothing_but_the_cache_has_it_from_here_too() -> None:
    gate = taught()
    gate.matcher.latest(sampled=True)
    assert gate.ask(LIKE, (b"cache-control", b"only-if-cached")) == "semantic"
    assert gate.matcher.checks == [], "nothing goes upstream for such a client"
    gate.matcher.verdict = lambda inquiry: Match(why="far")
    gate.ask("Which height has that old stone tower?", (b"cache-control", b"only-if-cached"))
    assert isinstance(gate.call.fault, NotCached)


def test_a_client_that_leaves_meanwhile_is_recorded_once() -> None:
    gate = taught()
    gate.ask(LIKE, gone=True)
    assert isinstance(gate.call.fault, ClientGone)
    assert gate.sent == 1


# -- what it is told --------------------------------------------------------------------------------------------------


def test_every_fresh_answer_that_is_kept_is_told_with_its_ticket() -> None:
    gate = Gate()
    gate.matcher.verdict = lambda inquiry: Match(ticket=5, why="unsure")
    gate.prepare()
    assert gate.ask(FIRST) == "miss"
    (lesson,) = gate.matcher.lessons
    (inquiry,) = gate.matcher.inquiries
    assert (lesson.ticket, lesson.answer, lesson.inquiry, lesson.checked) == (5, "40 m", inquiry, False)
    assert inquiry.text == FIRST
    assert inquiry.call == gate.call.id
    assert lesson.key in gate.store.entries
    assert lesson.cost == gate.call.money.total
    assert gate.store.entries[lesson.key].partition == inquiry.partition
    gate.world.answer(500, JSON, [b"{}"])
    gate.ask(LIKE)
    assert len(gate.matcher.lessons) == 1


def test_a_sampled_hit_is_sent_once_more_and_settles_its_ticket() -> None:
    gate = taught()
    gate.matcher.latest(ticket=9, sampled=True)
    assert gate.ask(LIKE) == "semantic"
    (request,) = gate.matcher.checks
    assert request.checks == 9
    gate.matcher.inquiries.clear()
    gate.prepare(said("Forty metres."))
    assert gate.ask(LIKE, checks=9) == "bypass"
    assert gate.matcher.inquiries == [], "a check asks nobody"
    lesson = gate.matcher.lessons[-1]
    assert (lesson.ticket, lesson.checked, lesson.answer) == (9, True, "Forty metres.")
    record = Converter(0).record_of(gate.call)
    assert (record.cache, record.cache_reason, record.request_class) == ("bypass", "shadow", "shadow")
    assert record.cost is not None
    assert record.cost > 0
    assert gate.ask(LIKE) == "exact", "from now on the question has an answer of its own"


def test_the_loop_breaker_does_not_see_checks() -> None:
    class Loops:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def check(self, call: Any, now: int) -> list[Any]:
            self.seen.append("check")
            return []

        def learn(self, call: Any, now: int) -> None:
            self.seen.append("learn")

    gate = taught()
    gate.settings["loops"] = loops = Loops()
    gate.prepare()
    gate.ask(LIKE, checks=3)
    assert loops.seen == []
    gate.ask(LIKE)
    assert loops.seen == ["check", "learn"]


def test_a_cancellation_while_the_matcher_thinks_is_recorded_once() -> None:
    gate = taught()
    question = {"model": "gpt-4o", "messages": [{"role": "user", "content": LIKE}]}
    gate.world.settings = dict(gate.settings)
    request = ask(CHAT, json.dumps(question).encode())
    before = len(gate.world.journal.records)
    with pytest.raises(asyncio.CancelledError):
        drive(serve(request, MemoryDown(gate.world.log), gate.world.gateway()), at=0, raising=asyncio.CancelledError())
    assert len(gate.world.journal.records) == before + 1
