"""What the exact cache may answer and keep."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.call import Answer, Asked, Attempt, Call, Request, Route, ToolUse, Trace, Who
from gateway.config.schema import Cache, CacheRule, ExactCache
from gateway.dialects.registry import DIALECTS
from gateway.errors import ClientGone
from gateway.policy.cache_rules import (
    PLAIN,
    CacheRules,
    Terms,
    Wish,
    fits,
    lifetime,
    tags_of,
    unfit,
    unkeepable,
    wish_of,
)
from gateway.testing.doubles import World, ask

SECOND = 10**9
TERMS = Terms(True, 60 * SECOND, False, "unstated")
GOOD = Answer(model="m", finish_reasons=("stop",), output_chars=5)
PATHS = {
    "openai_chat": ("/v1/chat/completions", "chat"),
    "openai_responses": ("/v1/responses", "chat"),
    "anthropic": ("/v1/messages", "chat"),
    "openai_embeddings": ("/v1/embeddings", "embeddings"),
}


def call(body: dict[str, Any] | None = None, dialect: str = "openai_chat", **more: Any) -> Call:
    path, operation = PATHS[dialect]
    text = json.dumps({"model": "m", "messages": []} if body is None else body).encode()
    request = more.pop("request", None) or ask(path, text)
    route = Route(path, dialect, more.pop("operation", operation), "up", path.encode())
    asked = DIALECTS[dialect].read(route, Request(b"POST", b"", [], text))
    return Call("c", request, route, asked, more.pop("who", Who()), Trace(), 0, 0, **more)


def ended(**more: Any) -> Call:
    target = World().specs["openai"].target
    return call(status=200, attempts=[Attempt(target, 0, status=200)], **more)


# -- which calls ------------------------------------------------------------------------------------------------------


def test_the_first_rule_that_matches_decides() -> None:
    rules = CacheRules(
        Cache(
            exact=ExactCache(
                enabled=False,
                ttl=100,
                rules=(
                    CacheRule(tenant="bank", enabled=False),
                    CacheRule(model="gpt-*", agent="a", ttl=5, tools=True, sampled="all"),
                    CacheRule(route="/v1/embeddings", upstream="up"),
                ),
            )
        )
    )
    assert not rules.terms(call()).enabled
    assert not rules.terms(call({"model": "gpt-4", "messages": []}, who=Who(agent="a", tenant="bank"))).enabled
    found = rules.terms(call({"model": "gpt-4", "messages": []}, who=Who(agent="a")))
    assert found == Terms(True, 5 * SECOND, True, "all")
    assert rules.terms(call(who=Who(agent="a"), model_sent="gpt-4")).enabled
    found = rules.terms(call({"model": "e", "input": "x"}, "openai_embeddings"))
    assert found == Terms(True, 100 * SECOND, False, "unstated")
    assert CacheRules(Cache(exact=ExactCache(enabled=True))).terms(call()).enabled


def test_scopes_that_never_end_do_not_fill_the_memory() -> None:
    rules = CacheRules(Cache(exact=ExactCache(enabled=True)))
    for number in range(5000):
        rules.terms(call(who=Who(agent=f"a{number}")))
    assert len(rules._scoped._known) <= 2048


@pytest.mark.parametrize(
    ("dialect", "body", "why"),
    [
        ("openai_chat", {}, ""),
        ("openai_chat", {"temperature": 0}, ""),
        ("openai_chat", {"temperature": 0.5}, "sampled"),
        ("openai_chat", {"temperature": 0.5, "seed": 3}, ""),
        ("openai_chat", {"tools": [{"type": "function", "function": {"name": "f"}}]}, ""),
        ("openai_chat", {"web_search_options": {}}, "server_tools"),
        ("openai_chat", {"plugins": [{"id": "web"}]}, "server_tools"),
        ("openai_responses", {"input": "x"}, ""),
        ("openai_responses", {"input": "x", "background": False}, ""),
        ("openai_responses", {"input": "x", "background": True}, "background"),
        ("openai_responses", {"input": "x", "previous_response_id": "r"}, "conversation"),
        ("openai_responses", {"input": "x", "conversation": "c"}, "conversation"),
        ("openai_responses", {"input": "x", "prompt": {"id": "p"}}, "conversation"),
        ("openai_responses", {"input": "x", "tools": [{"type": "web_search"}]}, "server_tools"),
        ("anthropic", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "server_tools"),
        ("anthropic", {"mcp_servers": []}, "server_tools"),
        ("openai_embeddings", {"input": "x"}, ""),
    ],
)
def test_what_is_no_call_for_the_cache(dialect: str, body: dict[str, Any], why: str) -> None:
    asked = call(
        {"model": "m", **({"messages": []} if dialect in ("openai_chat", "anthropic") else {}), **body}, dialect
    )
    assert unfit(asked, TERMS, DIALECTS[dialect]) == why
    liberal = Terms(True, 1, True, "all")
    assert unfit(asked, liberal, DIALECTS[dialect]) == ("" if why in ("sampled", "server_tools") else why)


def test_strictly_what_states_nothing_counts_as_sampled_but_embeddings_never_do() -> None:
    strict = Terms(True, 1, False, "none")
    assert unfit(call(), strict, DIALECTS["openai_chat"]) == "sampled"
    embedding = call({"model": "e", "input": "x"}, "openai_embeddings")
    assert unfit(embedding, strict, DIALECTS["openai_embeddings"]) == ""


def test_only_what_answers_a_question_is_asked_for() -> None:
    for odd in (
        call(operation=""),
        call(operation="fetch_response"),
        call(websocket=True),
        call(request=ask("/v1/chat/completions", b"{}", method=b"GET")),
    ):
        assert unfit(odd, TERMS, DIALECTS["openai_chat"]) == "operation"
    odd = call()
    odd.asked = Asked()
    assert unfit(odd, TERMS, DIALECTS["openai_chat"]) == "operation"


@pytest.mark.parametrize(
    ("headers", "wish"),
    [
        ((), PLAIN),
        ([(b"cache-control", b"no-cache")], Wish(look=False)),
        ([(b"cache-control", b"No-Store, max-age=5")], Wish(look=False, store=False, oldest=5 * SECOND)),
        ([(b"cache-control", b"max-age=0")], Wish(look=False, oldest=0)),
        ([(b"cache-control", b'max-age="60"')], Wish(oldest=60 * SECOND)),
        ([(b"cache-control", b"max-age=x, only-if-cached")], Wish(only=True)),
        ([(b"cache-control", b"private, max-stale=3")], PLAIN),
        ([(b"x-tollgate-cache", b"bypass")], Wish(look=False, store=False)),
        ([(b"x-tollgate-cache", b" Refresh ")], Wish(look=False)),
        ([(b"x-tollgate-cache", b"only")], Wish(only=True)),
        ([(b"x-tollgate-cache", b"surprise")], PLAIN),
        (
            [(b"Cache-Control", b"max-age=9"), (b"cache-control", b"No-Store")],
            Wish(look=False, store=False, oldest=9 * SECOND),
        ),
    ],
)
def test_what_clients_may_wish(headers: Sequence[tuple[bytes, bytes]], wish: Wish) -> None:
    assert wish_of(ask("/", b"", *headers)) == wish


def test_tags_are_bounded() -> None:
    def tags(*lines: bytes) -> tuple[str, ...]:
        return tags_of(ask("/", b"", *[(b"X-Tollgate-Cache-Tags", line) for line in lines]))

    assert tags() == ()
    assert tags(b" a, b ,,c\x01") == tags(b"a", b"b") == ("a", "b")
    many = tags(b",".join([b"x" * 100] * 50))
    assert (len(many), len(many[0])) == (16, 64)


def test_not_all_end_at_once() -> None:
    keys = [bytes(28) + number.to_bytes(4, "little") for number in range(0, 2**32, 2**27)]
    spans = {lifetime(TERMS, 0.5, key) for key in keys}
    assert len(spans) == len(keys)
    assert min(spans) >= 30 * SECOND
    assert max(spans) <= 60 * SECOND
    assert {lifetime(TERMS, 0, key) for key in keys} == {60 * SECOND}


# -- which answers ----------------------------------------------------------------------------------------------------


def test_what_came_whole_is_kept() -> None:
    assert unkeepable(ended(), GOOD, TERMS) == ""
    embedding = ended(body={"model": "e", "input": "x"}, dialect="openai_embeddings")
    assert unkeepable(embedding, Answer(model="e"), TERMS) == ""


@pytest.mark.parametrize("reason", ["length", "max_tokens", "content_filter", "refusal", "pause_turn", "SAFETY",
                                    "max_output_tokens", "incomplete", "MAX_TOKENS", "surprise"])  # fmt: skip
def test_no_other_end_is_kept(reason: str) -> None:
    for reasons in ((reason,), ("stop", reason)):
        answer = Answer(model="m", finish_reasons=reasons, output_chars=5)
        assert unkeepable(ended(), answer, TERMS) == "unfinished"


def test_what_is_not_whole_is_not_kept() -> None:
    assert unkeepable(ended(fault=ClientGone()), GOOD, TERMS) == "failed"
    assert unkeepable(ended(fault=ClientGone()), GOOD, TERMS, carried=True) == ""
    failing = ended()
    failing.status = failing.attempts[-1].status = 500
    assert unkeepable(failing, GOOD, TERMS) == "failed"
    assert unkeepable(call(status=200), GOOD, TERMS) == "failed"
    for odd, why in (
        (Answer(finish_reasons=("stop",), output_chars=5, complete=False), "incomplete"),
        (Answer(finish_reasons=("stop",), output_chars=5, error_type="x"), "incomplete"),
        (Answer(finish_reasons=("stop",), output_chars=5, background=True), "incomplete"),
        (Answer(finish_reasons=("stop",)), "empty"),
        (Answer(finish_reasons=("stop",), output_chars=5, refused=True), "refused"),
        (Answer(output_chars=5), "unfinished"),
    ):
        assert unkeepable(ended(), odd, TERMS) == why
    for made in ("clamped", "tapered", "stopped"):
        assert unkeepable(ended(notes={"budget": made}), GOOD, TERMS) == "changed"


def test_tool_calls_are_kept_and_given_by_the_rule_of_each_call() -> None:
    answer = Answer(finish_reasons=("tool_calls",), tool_uses=(ToolUse("1", "f"),))
    liberal = Terms(True, 60 * SECOND, True, "all")
    assert unkeepable(ended(), answer, TERMS) == "tools"
    assert unkeepable(ended(), answer, liberal) == ""
    assert fits(answer, 1, liberal, PLAIN)
    assert not fits(answer, 1, TERMS, PLAIN)


def test_an_answer_may_be_too_old_for_this_call_though_it_is_good_for_others() -> None:
    assert fits(GOOD, 59 * SECOND, TERMS, PLAIN)
    assert not fits(GOOD, 60 * SECOND, TERMS, PLAIN)
    assert fits(GOOD, 5 * SECOND, TERMS, Wish(oldest=5 * SECOND))
    assert not fits(GOOD, 6 * SECOND, TERMS, Wish(oldest=5 * SECOND))
