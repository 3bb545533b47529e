"""Which calls may be answered by an answer to a similar question, and under which partition."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Call, Route, Trace, Who
from gateway.config.schema import SemanticCache
from gateway.config.schema_semantic import SemanticRule
from gateway.dialects.registry import DIALECTS
from gateway.policy.cache_key import Basis
from gateway.policy.semantic_rules import SemanticRules, cut, reworded, topic_of, unsuited
from gateway.ports import LastTurn, Spec
from gateway.testing.doubles import World, ask

CHAT = DIALECTS["openai_chat"]
GEMINI = DIALECTS["gemini"]
ROUTE = Route("/v1/chat/completions", "openai_chat", "chat", "openai", b"/v1/chat/completions")
BASIS = Basis(b"1", b"place")


def call(body: Any, *headers: tuple[bytes, bytes], dialect: Any = CHAT, route: Route = ROUTE, **who: str) -> Call:
    request = ask(ROUTE.template, json.dumps(body).encode(), *headers)
    return Call(
        id="c", request=request, route=route, asked=dialect.read(route, request),
        who=Who(**{"tenant": "t", "agent": "a", **who}), trace=Trace(), started_at=1, began=1,
    )  # fmt: skip


def spec(**more: Any) -> Spec:
    return World(auth=((b"authorization", b"paid"),), **more).specs["openai"]


def partition(made: Call, at: Spec | None = None) -> bytes:
    turn, found = cut(made, at or spec(), made.request.body, BASIS, CHAT)
    assert turn.why == ""
    return found


def chat(text: str, *before: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [*before, {"role": "user", "content": text}], **more}


def turn(text: str, before: bool = False) -> LastTurn:
    return LastTurn(text, {}, before)


SYSTEM = {"role": "system", "content": "Be brief."}


def test_only_the_last_text_may_differ() -> None:
    base = partition(call(chat("How tall is it?", SYSTEM)))
    assert partition(call(chat("Another question", SYSTEM))) == base
    assert partition(call(chat("Another question", SYSTEM, stream=True))) == base
    assert partition(call(dict(reversed(list(chat("x", SYSTEM).items()))))) == base
    others = [
        call(chat("How tall is it?")),
        call(chat("How tall is it?", SYSTEM, SYSTEM)),
        call(chat("How tall is it?", {"role": "system", "content": "Be brief. "})),
        call(chat("How tall is it?", SYSTEM, temperature=0)),
        call(chat("How tall is it?", SYSTEM, tools=[])),
        call(chat("How tall is it?", SYSTEM, response_format={"type": "json_object"})),
        call(chat("How tall is it?", SYSTEM, unknown=1)),
        call(chat("How tall is it?", SYSTEM, user="u")),
        call({**chat("How tall is it?", SYSTEM), "model": "n"}),
        call({"model": "m", "messages": [SYSTEM, {"role": "user", "content": "x", "name": "n"}]}),
        call({"model": "m", "messages": [SYSTEM, {"role": "user", "content": [{"type": "text", "text": "x"}]}]}),
        call(chat("How tall is it?", SYSTEM), (b"OpenAI-Beta", b"x")),
        call(chat("How tall is it?", SYSTEM), tenant="other"),
        call(chat("How tall is it?", SYSTEM), end_user="somebody"),
    ]
    keys = [partition(one) for one in others] + [partition(call(chat("x", SYSTEM)), spec(headers=((b"x", b"y"),)))]
    assert base not in keys[:-1]
    assert len(set(keys[:-1])) == len(others)


def test_clients_with_credentials_of_their_own_share_no_partition() -> None:
    open_spec = World().specs["openai"]
    one, two = (call(chat("x"), (b"authorization", f"Bearer {who}".encode())) for who in ("a", "b"))
    assert partition(one, open_spec) != partition(two, open_spec)


def test_a_body_without_a_sure_meaning_has_no_partition() -> None:
    made = call(chat("x"))
    made.request.body = b'{"model":"m","model":"n","messages":[{"role":"user","content":"x"}]}'
    found, key = cut(made, spec(), made.request.body, BASIS, CHAT)
    assert (found.why, key) == ("ambiguous", b"")


@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_the_texts_are(one: str, other: str) -> None:
    first, second = call(chat(one)), call(chat(other))
    found, key = cut(first, spec(), first.request.body, BASIS, CHAT)
    again, same = cut(second, spec(), second.request.body, BASIS, CHAT)
    if not (found.why or again.why):
        assert key == same
        assert (found.text, again.text) == (one, other)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({}, ""),
        ({"temperature": 0.3}, ""),
        ({"temperature": 0.31}, "temperature"),
        ({"temperature": 1}, "temperature"),
        ({"n": 1}, ""),
        ({"n": 3}, "choices"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": False}, ""),
        ({"top_logprobs": 2}, "logprobs"),
        ({"top_logprobs": 0}, ""),
        ({"web_search_options": {}}, "server_tools"),
        ({"mcp_servers": []}, "server_tools"),
        ({"pad": "x" * 300_000}, "length"),
    ],
)
def test_what_of_a_request_forbids_it(body: Any, why: str) -> None:
    assert unsuited(call({**chat("How tall is it?"), **body}), CHAT) == why


def test_gemini_states_it_elsewhere() -> None:
    route = Route("/v1beta/models/{model}:generateContent", "gemini", "generate_content", "gemini",
                  b"/v1beta/models/g:generateContent")  # fmt: skip
    for config, why in (
        ({"responseLogprobs": True}, "logprobs"),
        ({"candidateCount": 2}, "choices"),
        ({"temperature": 0.9}, "temperature"),
        ({"maxOutputTokens": 5}, ""),
    ):
        body = {"contents": [{"parts": [{"text": "x"}]}], "generationConfig": config}
        assert unsuited(call(body, dialect=GEMINI, route=route), GEMINI) == why, config


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("How tall is the old tower?", ""),
        ("Is it possible to open an account online?", ""),
        ("Which courses are offered next semester?", ""),
        ("What is the weather like today?", "time"),
        ("Who is the current president of France?", "time"),
        ("Show me the latest exchange rates please", "time"),
        ("What time is it now in Paris, France?", "time"),
        ("Nowhere land knowledge downtown snow", ""),
        ("What time is it in Oslo?", "time"),
        ("can you tell me what day of the week it is in Sydney", "time"),
        ("What's the exact time in New Delhi", "time"),
        ("local time in New Delhi please", "time"),
        ("do you know how late is it in old Cairo", "time"),
        ("What time does the store on Main Street open?", ""),
        ("What is the time difference between Rome and Oslo?", ""),
        ("I used my card for the first time in Rome", ""),
        ("Tell me another one about old towers", "refers_back"),
        ("Please try that tower question again", "refers_back"),
        ("Continue the story of the tower", "refers_back"),
        ("Why?", "few_words"),
        ("What is that?", "few_words"),
        ("", "few_words"),
        ("tower tower tower tower", "few_words"),
        ("Write to ann.bee@example.org about the tower", "personal"),
        ("My card 4111 1111 1111 1111 was declined abroad", "personal"),
        ("My number 078-05-1120 was leaked somewhere", "personal"),
        ("Is DE89 3704 0044 0532 0130 00 a valid account?", "personal"),
        ("Call me back at +49 30 1234567 about the tower", "personal"),
        ("Flight 1234 from gate 12 leaves at 10", ""),
        ("word " * 480, "few_words"),
        ("Who built the tower\U000e0073\U000e0061\U000e0079 here", "hidden"),
        ("Who built\u200b the tower", "hidden"),
        ("Who built the\x08 tower", "hidden"),
        ("Who built\r\nthe\ttower\u00a0of stone \u2764\ufe0f caf\u00e9?", ""),
        ("tall old stone " * 200, "length"),
    ],
)
def test_what_of_a_text_forbids_it(text: str, why: str) -> None:
    assert reworded(turn(text), time_words=False) == why


def test_words_of_time_may_be_allowed() -> None:
    assert reworded(turn("What is the weather in Paris today?"), time_words=True) == ""
    assert reworded(turn("What time is it in Paris?"), time_words=True) == ""


@pytest.mark.parametrize("text", ["turn the lights on", "How do I change my PIN?"])
def test_few_words_say_enough_where_nothing_was_said_before(text: str) -> None:
    assert reworded(turn(text), time_words=False) == ""
    assert reworded(turn(text, before=True), time_words=False) == "few_words"


@pytest.mark.parametrize(
    "text",
    [
        "How old is he then, roughly speaking?",
        "What about the other tall tower?",
        "Make the summary shorter and clearer",
        "Is that tower taller than the bridge?",
    ],
)
def test_what_points_back_is_left_alone_where_there_is_something_to_point_at(text: str) -> None:
    assert reworded(turn(text, before=True), time_words=False) == "refers_back"
    assert reworded(turn(text), time_words=False) == ""


def test_the_first_rule_that_matches_decides() -> None:
    rules = SemanticRules(
        SemanticCache(
            mode="shadow",
            ttl=60,
            rules=(
                SemanticRule(tenant="bank", mode="off"),
                SemanticRule(agent="b*", mode="serve", target=0.05, sample=0.1, ttl=5, time_words=True),
                SemanticRule(model="m"),
            ),
        )
    )
    off = rules.terms(call(chat("x"), tenant="bank", agent="bot"))
    own = rules.terms(call(chat("x"), agent="bot"))
    rest = rules.terms(call(chat("x")))
    assert off.mode == "off"
    assert (own.mode, own.target, own.sample, own.ttl, own.time_words) == ("serve", 0.05, 0.1, 5 * 10**9, True)
    assert (rest.mode, rest.target, rest.sample, rest.ttl, rest.time_words) == ("shadow", 0.01, 0.04, 60 * 10**9, False)
    assert rules.terms(call(chat("x"))) is rest


def test_a_topic_is_a_tenant_an_agent_and_a_model_in_words_that_can_be_written() -> None:
    terms = SemanticRules(SemanticCache(mode="serve")).terms(call(chat("x")))
    topic = topic_of(call(chat("x"), tenant="t\udcff", agent=""), terms)
    assert (topic.scope, topic.tenant, topic.serve) == ("t\\udcff/-/m", "t\\udcff", True)
    made = call(chat("x"))
    made.model_sent = "real"
    assert topic_of(made, terms).scope == "t/a/real"
