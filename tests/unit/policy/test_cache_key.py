"""Keys of questions: any difference in meaning is a difference in key, and none in spelling is."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.call import Asked, Call, Request, Route, Target, Trace, Who
from gateway.key import Key
from gateway.policy.cache_key import Basis, Meanings, canonical, digest, entry_name, key_of, place_of
from gateway.ports import Spec
from gateway.testing.doubles import ask

PAID = Spec("up", "openai", Target("up", "openai", "h", 443, True, b""), b"h", auth=((b"authorization", b"x"),))
FREE = Spec("up", "openai", PAID.target, b"h")
BASIS = Basis(b"1", place_of(PAID))
BODY = {"model": "m", "messages": [{"role": "user", "content": "Why?"}]}


def call(request: Request | None = None, **more: Any) -> Call:
    route = more.pop("route", Route("/v1/chat/completions", "openai_chat", "chat", "up", b"/v1/chat/completions"))
    who = more.pop("who", Who())
    return Call("c", request or ask("/v1/chat/completions"), route, Asked("m"), who, Trace(), 0, 0, **more)


def key(body: Any = BODY, spec: Spec = PAID, basis: Basis = BASIS, **more: Any) -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = key_of(call(**more), spec, text, basis)
    assert found is not None
    assert len(found) == 32
    return found


numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | numbers | st.text(max_size=6)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)
bodies = st.dictionaries(st.text(max_size=8), values, max_size=5)


def normal(value: Any) -> str:
    """The meaning of a body, in the words of another library: types and digits count, the order of members does not."""
    return json.dumps(value, sort_keys=True)


def shuffled(value: Any, draw: Any) -> Any:
    if isinstance(value, dict):
        names = draw(st.permutations(list(value)))
        return {name: shuffled(value[name], draw) for name in names}
    return [shuffled(item, draw) for item in value] if isinstance(value, list) else value


@settings(max_examples=400, deadline=None)
@given(bodies, st.data())
def test_order_white_space_and_escapes_do_not_count(body: dict[str, Any], data: st.DataObject) -> None:
    other = shuffled(body, data.draw)
    indent = data.draw(st.sampled_from([None, 0, 3]))
    spelled = json.dumps(other, indent=indent, ensure_ascii=data.draw(st.booleans())).encode()
    first = canonical(json.dumps(body).encode())
    assert first is not None or b"\\u0022" in spelled
    assert canonical(spelled) == first


@settings(max_examples=400, deadline=None)
@given(bodies, bodies)
def test_two_bodies_have_one_meaning_only_if_they_have_one_text(one: dict[str, Any], two: dict[str, Any]) -> None:
    plain = {"stream", "stream_options"}.isdisjoint({*one, *two})
    same = canonical(json.dumps(one).encode()) == canonical(json.dumps(two).encode())
    assert same == (normal(one) == normal(two)) or not plain


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in entries:
        found += places(inner, (*path, name))
    return found


@settings(max_examples=400, deadline=None)
@given(bodies, values, st.data())
def test_any_change_of_any_field_at_any_depth_is_another_key(
    body: dict[str, Any], new: Any, data: st.DataObject
) -> None:
    body = {**BODY, **body}
    path = data.draw(st.sampled_from([path for path in places(body) if path]))
    changed = copy.deepcopy(body)
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    if data.draw(st.booleans()) or not isinstance(inner, dict):
        inner[path[-1]] = new
    else:
        del inner[path[-1]]
    if path[0] in ("stream", "stream_options") or normal(changed) == normal(body):
        return
    assert key(changed) != key(body)


@pytest.mark.parametrize(
    "more",
    [
        {"chat_template_kwargs": {"enable_thinking": True}},  # the fault of LiteLLM: unknown fields left out
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"temperature": 0},
        {"temperature": 0.0},
        {"seed": 18446744073709551617},
        {"seed": 18446744073709551618},
        {"x": 0.1},
        {"user": None},
        {"user": ""},
        {"stream_options": {"include_obfuscation": False}},
        {"stream": "yes"},
    ],
)
def test_every_field_counts(more: dict[str, Any]) -> None:
    assert key({**BODY, **more}) != key(BODY)


def test_numbers_count_as_written() -> None:
    texts = [b'{"a":%b}' % number for number in (b"1", b"1.0", b"1.00", b"1e0", b"18446744073709551617", b"2e400")]
    assert len({key(text) for text in texts}) == len(texts)


def test_how_an_answer_is_sent_does_not_count() -> None:
    ways = [{}, {"stream": True}, {"stream": False}, {"stream": True, "stream_options": {"include_usage": True}}]
    assert len({key({**BODY, **way}) for way in ways}) == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":{"x":1,"x":2}}',
        b'{"a":[{"x":1,"\\u0078":2}]}',
        b'{"a":{"x":"\\u0022\\u0022","x":2}}',  # an escaped quote hides the count
        b'{"a":"x","a":"\\u0022\\u0022\\u0022\\u0022"}',  # and makes it right
        b'{"a":"\\u0022"}',
        b"[]",
        b"no json",
        b"",
        b'{"a":"\xff"}',
    ],
)
def test_what_has_no_sure_meaning_has_no_key(body: bytes) -> None:
    assert canonical(body) is None
    assert key_of(call(), PAID, body, BASIS) is None


def test_who_asks_counts() -> None:
    team, other = Key("k1", team="a"), Key("k2", team="a")
    lone, alone = Key("k1"), Key("k2")
    assert key(key=team) == key(key=other)
    assert len({key(key=one) for one in (team, Key("k3", team="b"), lone, alone, None)}) == 5
    whos = [Who(), Who(tenant="t"), Who(end_user="u"), Who(tenant="t", end_user="u"), Who(tenant="tu")]
    assert len({key(who=who) for who in whos}) == len(whos)
    assert key(who=Who(run_id="r", agent="a", step=3)) == key()


def test_a_credential_of_the_client_counts_where_it_is_sent_on() -> None:
    requests = [
        ask("/v1/chat/completions", b"", (b"Authorization", b"Bearer a")),
        ask("/v1/chat/completions", b"", (b"Authorization", b"Bearer b")),
        ask("/v1/chat/completions", b"", (b"X-Api-Key", b"Bearer a")),
        ask("/v1/chat/completions?key=a"),
        ask("/v1/chat/completions"),
    ]
    assert len({key(request=request, spec=FREE) for request in requests}) == len(requests)
    assert len({key(request=request) for request in requests}) == 1


def test_where_it_goes_counts() -> None:
    base = Route("/v1/chat/completions", "openai_chat", "chat", "up", b"/v1/chat/completions")
    routes = [
        base,
        Route("/v1/chat/completions", "openai_chat", "chat", "other", base.path),
        Route("/v1/completions", "openai_chat", "chat", "up", base.path),
        Route("/v1/chat/completions", "openai_completions", "chat", "up", base.path),
        Route("/v1/chat/completions", "openai_chat", "chat", "up", base.path + b"?api-version=2"),
    ]
    assert len({key(route=route) for route in routes}) == len(routes)
    assert key(model_sent="another") != key()
    assert key(request=ask("/v1/chat/completions", method=b"PUT")) != key()
    target = PAID.target
    specs = [
        PAID,
        Spec("up", "openai", Target("up", "openai", "h2", 443, True, b""), b"h2", auth=PAID.auth),
        Spec("up", "openai", Target("up", "openai", "h", 443, True, b"/v2"), b"h", auth=PAID.auth),
        Spec("up", "openai", target, b"h", auth=PAID.auth, headers=((b"anthropic-beta", b"x"),)),
        Spec("up", "anthropic", target, b"h", auth=PAID.auth),
    ]
    assert len({key(spec=spec, basis=Basis(b"1", place_of(spec))) for spec in specs}) == len(specs)
    assert key(basis=Basis(b"2", place_of(PAID))) != key()


def headed(*headers: tuple[bytes, bytes]) -> Request:
    return ask("/v1/chat/completions", b"", *headers)


def test_headers_count_but_those_that_change_nothing() -> None:
    nothing = [
        (b"User-Agent", b"x"), (b"X-Stainless-Lang", b"python"), (b"traceparent", b"00-1"), (b"Accept", b"*/*"),
        (b"Content-Length", b"7"), (b"X-Tollgate-Run-Id", b"r"), (b"Connection", b"X-Hop"), (b"X-Hop", b"1"),
        (b"x-request-id", b"1"), (b"cache-control", b"max-age=3"),
    ]  # fmt: skip
    assert key(request=headed(*nothing)) == key()
    something = [
        [(b"anthropic-beta", b"a")],
        [(b"anthropic-beta", b"b")],
        [(b"anthropic-beta", b"a"), (b"anthropic-beta", b"b")],
        [(b"anthropic-beta", b"b"), (b"anthropic-beta", b"a")],
        [(b"openai-organization", b"o")],
        [(b"Accept-Language", b"de")],
        [(b"X-Whatever", b"1")],
        [(b"X-What", b"ever1")],
    ]
    assert len({key(request=headed(*headers)) for headers in something} | {key()}) == len(something) + 1
    assert key(request=headed((b"A", b"1"), (b"B", b"2"))) == key(request=headed((b"b", b"2"), (b"a", b"1")))
    ignoring = Basis(b"1", BASIS.place, frozenset((b"x-whatever",)))
    assert key(request=headed((b"X-Whatever", b"1")), basis=ignoring) == key(basis=ignoring)


def test_headers_are_read_once_for_equal_heads_and_anew_for_another_configuration() -> None:
    request = headed((b"X-Whatever", b"1"))
    assert key(request=request) == key(request=request)
    assert "cache_headers" in request.facts
    ignoring = Basis(b"1", BASIS.place, frozenset((b"x-whatever",)))
    assert key(request=request, basis=ignoring) == key(basis=ignoring)


@given(st.lists(st.binary(max_size=4), max_size=5), st.lists(st.binary(max_size=4), max_size=5))
def test_no_two_lists_of_parts_read_alike(one: list[bytes], two: list[bytes]) -> None:
    assert (digest(one) == digest(two)) == (one == two)


def test_names_are_no_keys() -> None:
    assert len(entry_name(key())) == 16


# -- bodies that come again -------------------------------------------------------------------------------------------


def long_body(number: int = 0, size: int = 3000) -> bytes:
    return json.dumps({"model": "m", "n": number, "messages": ["x" * size]}).encode()


def test_a_body_that_comes_again_means_the_same_and_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    meanings, reads = Meanings(10_000), []

    def counted(body: bytes) -> bytes | None:
        reads.append(body)
        return canonical(body)

    monkeypatch.setattr("gateway.policy.cache_key.canonical", counted)
    basis = Basis(b"1", place_of(PAID), meanings=meanings)
    first, other = long_body(1), long_body(2)
    for body in (first, bytes(bytearray(first)), other):
        assert key(body, basis=basis) == key(body)
    assert reads == [first, first, first, other, other], "read once with the memory, and each time without"


def test_what_is_remembered_is_of_one_tenant_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    meanings, body = Meanings(10_000), long_body()
    known = meanings.of("a", body)
    monkeypatch.setattr("gateway.policy.cache_key.canonical", lambda body: None)
    assert meanings.of("a", body) == known
    assert meanings.of("b", body) is None
    monkeypatch.undo()
    for number in range(1, 4):
        meanings.of("a", long_body(number))
        meanings.of("a", body)  # used since
        assert meanings.held <= 10_000
    monkeypatch.setattr("gateway.policy.cache_key.canonical", lambda body: None)
    assert meanings.of("a", body) == known, "what was used least lately goes first"
    assert meanings.of("a", long_body(1)) is None


def test_bodies_without_a_sure_meaning_small_and_huge_ones_are_read_each_time() -> None:
    meanings = Meanings(10_000_000)
    assert meanings.of("a", b'{"a": 1, "a": 2, "b": "' + b"x" * 3000 + b'"}') is None
    meanings.of("a", b"{}")
    meanings.of("a", long_body(size=Meanings.MOST))
    assert meanings.held == 0


# -- bodies of every dialect ------------------------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"at": {"type": "integer", "minimum": 1}}, "required": ["at"]}
IMAGE = "data:image/png;base64,iVBORw0KGgo="
ASKED = {
    "/v1/chat/completions": {
        "model": "m",
        "temperature": 0,
        "seed": 7,
        "stop": ["\n\n"],
        "logit_bias": {"50256": -100},
        "n": 1,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": IMAGE}}],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"at": 1}'}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": "[1, 2]"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA, "strict": True}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
    },
    "/v1/completions": {"model": "m", "prompt": ["a", "b"], "max_tokens": 5, "echo": False, "suffix": ""},
    "/v1/embeddings": {"model": "m", "input": ["a", [1, 2, 3]], "dimensions": 256, "encoding_format": "float"},
    "/v1/responses": {
        "model": "m",
        "instructions": "Be brief.",
        "store": False,
        "reasoning": {"effort": "low"},
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "What?"}]},
            {"type": "function_call_output", "call_id": "c", "output": "1"},
        ],
        "tools": [{"type": "function", "name": "f", "parameters": SCHEMA}],
        "text": {"format": {"type": "json_schema", "schema": SCHEMA}},
    },
    "/v1/messages": {
        "model": "m",
        "max_tokens": 64,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "metadata": {"user_id": "u"},
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "document", "source": {"type": "text", "data": "x"}},
                    {"type": "text", "text": "What?"},
                ],
            }
        ],
        "tools": [{"name": "f", "input_schema": SCHEMA}],
        "tool_choice": {"type": "auto"},
    },
    "/v1beta/models/{model}:generateContent": {
        "contents": [
            {"role": "user", "parts": [{"text": "What?"}, {"inlineData": {"mimeType": "image/png", "data": "aQ=="}}]}
        ],
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "safetySettings": [{"category": "c", "threshold": "t"}],
        "generationConfig": {"temperature": 0, "thinkingConfig": {"thinkingBudget": 0}, "responseSchema": SCHEMA},
        "tools": [{"functionDeclarations": [{"name": "f", "parameters": SCHEMA}]}],
    },
    "/v1beta/models/{model}:embedContent": {"content": {"parts": [{"text": "x"}]}, "taskType": "RETRIEVAL_QUERY"},
}
"""What is asked in earnest, of every dialect."""


def route_of(template: str) -> Route:
    return Route(template, f"dialect of {template}", "chat", "up", template.encode())


@pytest.mark.parametrize("template", ASKED)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_bodies_of_every_dialect_are_equal_however_they_are_spelled(template: str, data: st.DataObject) -> None:
    body, route = ASKED[template], route_of(template)
    other = shuffled(body, data.draw)
    indent, ascii_only = data.draw(st.sampled_from([None, 0, 3])), data.draw(st.booleans())
    assert key(json.dumps(other, indent=indent, ensure_ascii=ascii_only).encode(), route=route) == key(
        body, route=route
    )


@pytest.mark.parametrize("template", ASKED)
def test_no_place_in_a_body_of_any_dialect_is_overlooked(template: str) -> None:
    body, route = json.loads(json.dumps(ASKED[template])), route_of(template)
    seen = {key(body, route=route)}
    changes = 0
    for path in places(body)[1:]:
        for new in ("changed", None, 1.5, [], {"a": "b"}):
            changed = copy.deepcopy(body)
            inner: Any = changed
            for name in path[:-1]:
                inner = inner[name]
            if inner[path[-1]] == new:
                continue
            inner[path[-1]] = new
            seen.add(key(changed, route=route))
            changes += 1
    assert len(seen) == changes + 1, "each change is a key of its own"


def test_one_body_is_another_question_on_each_route() -> None:
    assert len({key(route=route_of(template)) for template in ASKED}) == len(ASKED)
