"""Splices that make a call cheaper: only ever lower, only the bytes of the value, valid JSON with the value meant."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from gateway.call import Asked, Request, Route
from gateway.dialects.body import splice
from gateway.dialects.lowering import rename_in_path
from gateway.dialects.registry import DIALECTS
from gateway.policy.splices import merged

OPERATIONS = {"gemini": "generate_content", "openai_completions": "text_completion"}


def one(talk, name):
    return talk(name, operation=OPERATIONS.get(name))


def capped(talk, name, body, ceiling, model=""):
    """The body as sent; None where it cannot be capped."""
    it = one(talk, name)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    edits = it.dialect.cap_output(it.route, it.read(data), data, ceiling, model)
    return None if edits is None else splice(data, edits)


def eased(talk, name, body, effort, model=""):
    it = one(talk, name)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return json.loads(splice(data, it.dialect.lower_effort(it.route, it.read(data), data, effort, model)))


@pytest.mark.parametrize(
    ("name", "body", "sent"),
    [
        ("openai_chat", b'{"model":"gpt-4o"}', b'{"max_tokens":100,"model":"gpt-4o"}'),
        ("openai_chat", b'{"model":"o3-mini"}', b'{"max_completion_tokens":100,"model":"o3-mini"}'),
        ("openai_chat", b'{"model":"openai/gpt-5.1"}', b'{"max_completion_tokens":100,"model":"openai/gpt-5.1"}'),
        ("openai_chat", b'{"model":"gpt-oss-120b"}', b'{"max_tokens":100,"model":"gpt-oss-120b"}'),
        ("openai_chat", b'{"model":"m", "max_tokens" : 900 }', b'{"model":"m", "max_tokens" : 100 }'),
        ("openai_chat", b'{"max_tokens":100}', b'{"max_tokens":100}'),
        ("openai_chat", b'{"max_tokens":99}', b'{"max_tokens":99}'),
        ("openai_chat", b'{"max_tokens":-1}', b'{"max_tokens":100}'),
        ("openai_chat", b'{"max_tokens":1e9}', b'{"max_tokens":100}'),
        ("openai_chat", b'{"max_tokens":null,"model":"m"}', b'{"max_tokens":100,"model":"m"}'),
        (
            "openai_chat",
            b'{"max_tokens":null,"max_completion_tokens":5}',
            b'{"max_tokens":null,"max_completion_tokens":5}',
        ),
        (
            "openai_chat",
            b'{"max_tokens":700,"max_completion_tokens":800}',
            b'{"max_tokens":100,"max_completion_tokens":100}',
        ),
        ("openai_chat", b'{"model":"o3","max_tokens":700}', b'{"model":"o3","max_tokens":100}'),
        ("openai_chat", b" { } ", b' {"max_tokens":100 } '),
        ("openai_completions", b'{"max_tokens":700}', b'{"max_tokens":100}'),
        ("openai_completions", b'{"prompt":"a"}', b'{"max_tokens":16,"prompt":"a"}'),
        ("openai_responses", b'{"input":"a"}', b'{"max_output_tokens":100,"input":"a"}'),
        ("openai_responses", b'{"max_output_tokens":700}', b'{"max_output_tokens":100}'),
        ("anthropic", b'{"max_tokens":700}', b'{"max_tokens":100}'),
        ("gemini", b'{"contents":[]}', b'{"generationConfig":{"maxOutputTokens":100},"contents":[]}'),
        ("gemini", b'{"generationConfig":{}}', b'{"generationConfig":{"maxOutputTokens":100}}'),
        ("gemini", b'{"generationConfig":null}', b'{"generationConfig":{"maxOutputTokens":100}}'),
        ("gemini", b'{"generationConfig":{"topK":1}}', b'{"generationConfig":{"maxOutputTokens":100,"topK":1}}'),
        (
            "gemini",
            b'{"generation_config":{"max_output_tokens":"900"}}',
            b'{"generation_config":{"max_output_tokens":100}}',
        ),
        ("gemini", b'{"generationConfig":"odd"}', None),
        ("openai_embeddings", b'{"input":"a"}', None),
        ("opaque", b'{"max_tokens":700}', None),
    ],
)
def test_the_clamp_is_minimal(talk, name, body, sent):
    assert capped(talk, name, body, 100) == sent


def test_the_model_that_is_sent_decides_which_limit_is_written(talk):
    assert (
        capped(talk, "openai_chat", b'{"model":"cheap"}', 9, "gpt-5") == b'{"max_completion_tokens":9,"model":"cheap"}'
    )


@pytest.mark.parametrize(
    ("thinking", "limit", "ceiling", "budget"),
    [
        (8000, 16_000, 10_000, 8000),
        (8000, 16_000, 8000, 4000),
        (8000, 16_000, 2000, 1024),
        (8000, 16_000, 1025, 1024),
        (8000, 16_000, 1024, None),
        (1024, 16_000, 1024, None),
        (8000, 16_000, 20_000, 8000),
        (30_000, 16_000, 10_000, 30_000),  # interleaved: need not be below
    ],
)
def test_thinking_stays_below_the_limit(talk, thinking, limit, ceiling, budget):
    body = {"thinking": {"type": "enabled", "budget_tokens": thinking}, "max_tokens": limit}
    sent = capped(talk, "anthropic", body, ceiling)
    if budget is None:
        assert sent is None
        return
    found = json.loads(sent)
    assert found["max_tokens"] == min(limit, ceiling)
    assert found["thinking"] == {"type": "enabled", "budget_tokens": budget}


def test_a_fallback_with_a_limit_of_its_own_is_not_held_by_another(talk):
    body = {"max_tokens": 900, "fallbacks": [{"model": "m"}, {"model": "n", "max_tokens": 900}]}
    assert capped(talk, "anthropic", body, 100) is None
    del body["fallbacks"][1]["max_tokens"]
    assert json.loads(capped(talk, "anthropic", body, 100))["max_tokens"] == 100
    assert capped(talk, "anthropic", {"max_tokens": 900, "fallbacks": "default"}, 100) is not None


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_a_body_that_was_not_read_as_it_stands_is_left_alone(talk, name):
    it = one(talk, name)
    asked = it.read(b'{"model":"gpt-5","max_tokens":700,"reasoning_effort":"high","max_output_tokens":9000}')
    for body in (b"", b"\x1f\x8b\x08 { compressed", b'{"model":"x"}', b"{}"):
        assert it.dialect.cap_output(it.route, asked, body, 100) is None
        assert it.dialect.lower_effort(it.route, asked, body, "low") == ()


@pytest.mark.parametrize(
    ("name", "path", "operation"),
    [
        ("openai_responses", "/v1/responses/compact", "chat"),
        ("openai_responses", "/v1/responses/r1/cancel", "fetch_response"),
        ("openai_responses", "/v1/responses/input_tokens", ""),
        ("anthropic", "/v1/messages/count_tokens", ""),
        ("gemini", "/v1beta/models/g:embedContent", "embeddings"),
    ],
)
def test_what_makes_no_text_has_no_limit(talk, name, path, operation):
    it = talk(name, path, operation)
    assert it.dialect.cap_output(it.route, it.read(b'{"model":"m"}'), b'{"model":"m"}', 100) is None


LIMITS = {
    "openai_chat": ("max_tokens", "max_completion_tokens"),
    "openai_completions": ("max_tokens",),
    "openai_responses": ("max_output_tokens",),
    "anthropic": ("max_tokens",),
    "gemini": ("maxOutputTokens",),
}
NUMBER = st.integers(0, 10**7) | st.floats(0, 1e7) | st.none()
GAP = st.sampled_from(["", " ", "\n\t"])
OTHERS = st.dictionaries(
    st.sampled_from(["n", "x", "y"]),
    st.sampled_from(["gpt-5", 1, None, [1, "max_tokens"], {}]),
    max_size=3,
)


def written(members, gap):
    return "{" + ",".join(f"{gap}{json.dumps(k)}{gap}:{gap}{v}{gap}" for k, v in members) + "}"


@st.composite
def bodies(draw):
    """(dialect, field, its value or absent, body)."""
    name = draw(st.sampled_from(sorted(LIMITS)))
    field = draw(st.sampled_from(LIMITS[name]))
    gap = draw(GAP)
    members = [(key, json.dumps(value)) for key, value in draw(OTHERS).items()]
    old = draw(NUMBER | st.just(...))
    if old is not ...:
        members.insert(draw(st.integers(0, len(members))), (field, json.dumps(old)))
    text = written(members, gap)
    if name == "gemini":
        text = written([("contents", "[]"), ("generationConfig", text), ("tools", "[]")], gap)
    return name, field, old, text.encode()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # shared machines pause
@given(bodies(), st.integers(1, 10**7))
def test_any_body_keeps_all_its_other_bytes(case, ceiling):
    name, field, old, body = case
    route = Route("/v1/x", name, OPERATIONS.get(name, "chat"), "up", b"/v1/responses")
    asked = DIALECTS[name].read(route, Request(b"POST", route.path, (), body))
    edits = DIALECTS[name].cap_output(route, asked, body, ceiling)
    sent = splice(body, edits)
    assert len(edits) <= 1
    kept = body if not edits else body[: edits[0].start] + body[edits[0].end :]
    back = sent if not edits else sent[: edits[0].start] + sent[edits[0].start + len(edits[0].text) :]
    assert kept == back

    before, after = json.loads(body), json.loads(sent)
    if name == "gemini":
        before, after = before["generationConfig"], after["generationConfig"]
    now = {key: after.pop(key, None) for key in LIMITS[name]}
    assert after == {key: value for key, value in before.items() if key not in LIMITS[name]}
    if old is ... or old is None:
        least = min(ceiling, 16) if name == "openai_completions" else ceiling
        assert [value for value in now.values() if value is not None] == [least]
    else:
        assert now[field] == min(old, ceiling)


@pytest.mark.parametrize(
    ("name", "body", "effort", "changed"),
    [
        ("openai_chat", {"reasoning_effort": "high"}, "low", {"reasoning_effort": "low"}),
        ("openai_chat", {"reasoning_effort": "xhigh"}, "medium", {"reasoning_effort": "medium"}),
        ("openai_chat", {"reasoning_effort": "low"}, "medium", {}),
        ("openai_chat", {"reasoning_effort": "none"}, "minimal", {}),
        (
            "openai_chat",
            {"model": "gpt-5-mini", "reasoning_effort": "high"},
            "minimal",
            {"reasoning_effort": "minimal"},
        ),
        ("openai_chat", {"model": "gpt-5.1", "reasoning_effort": "high"}, "minimal", {"reasoning_effort": "low"}),
        ("openai_chat", {"model": "o3", "reasoning_effort": "low"}, "minimal", {}),
        ("openai_chat", {"model": "gpt-5-pro", "reasoning_effort": "high"}, "low", {}),
        ("openai_chat", {"reasoning_effort": "default"}, "low", {}),
        ("openai_chat", {"reasoning_effort": None}, "low", {}),
        ("openai_chat", {"reasoning_effort": 7, "reasoning": []}, "low", {}),
        (
            "openai_chat",
            {"reasoning": {"effort": "high", "exclude": True}},
            "low",
            {"reasoning": {"effort": "low", "exclude": True}},
        ),
        (
            "openai_responses",
            {"reasoning": {"summary": "auto", "effort": "high"}},
            "medium",
            {"reasoning": {"summary": "auto", "effort": "medium"}},
        ),
        ("openai_responses", {"reasoning": {"summary": "auto"}}, "low", {}),
        ("openai_responses", {"reasoning": None}, "low", {}),
        (
            "anthropic",
            {"thinking": {"type": "enabled", "budget_tokens": 30_000}},
            "medium",
            {"thinking": {"type": "enabled", "budget_tokens": 8192}},
        ),
        ("anthropic", {"thinking": {"type": "enabled", "budget_tokens": 1024}}, "low", {}),
        (
            "anthropic",
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}},
            "minimal",
            {"output_config": {"effort": "low"}},
        ),
        ("anthropic", {"thinking": {"type": "disabled"}}, "low", {}),
        (
            "gemini",
            {"generationConfig": {"thinkingConfig": {"thinkingBudget": -1}}},
            "low",
            {"generationConfig": {"thinkingConfig": {"thinkingBudget": 1024}}},
        ),
        ("gemini", {"generationConfig": {"thinkingConfig": {"thinkingBudget": 0}}}, "low", {}),
        (
            "gemini",
            {"generationConfig": {"thinkingConfig": {"thinkingLevel": "HIGH"}}},
            "medium",
            {"generationConfig": {"thinkingConfig": {"thinkingLevel": "MEDIUM"}}},
        ),
        (
            "gemini",
            {"generation_config": {"thinking_config": {"thinking_level": "high"}}},
            "minimal",
            {"generation_config": {"thinking_config": {"thinking_level": "low"}}},
        ),
        ("gemini", {"generationConfig": {"thinkingConfig": None}}, "low", {}),
        ("gemini", {"contents": []}, "low", {}),
        ("openai_embeddings", {"reasoning_effort": "high"}, "low", {}),
    ],
)
def test_effort_only_goes_down(talk, name, body, effort, changed):
    assert eased(talk, name, body, effort) == {**body, **changed}


def test_a_pro_model_of_gemini_knows_low_and_high_only(talk):
    body = {"generationConfig": {"thinkingConfig": {"thinkingLevel": "high"}}}
    assert eased(talk, "gemini", body, "medium", "gemini-3-pro-preview")["generationConfig"] == {
        "thinkingConfig": {"thinkingLevel": "low"}
    }


def test_edits_of_all_purposes_fit_together_in_any_order(talk):
    it = one(talk, "openai_chat")
    body = b'{"model":"gpt-5","stream":true,"reasoning_effort":"high"}'
    asked = it.read(body)
    edits = [
        it.dialect.inject_usage(it.route, asked, body),
        *it.dialect.cap_output(it.route, asked, body, 100),
        *it.dialect.lower_effort(it.route, asked, body, "low"),
        *it.dialect.rename(it.route, asked, "gpt-5-mini")[1],
    ]
    wanted = {"stream_options": {"include_usage": True}, "max_completion_tokens": 100, "model": "gpt-5-mini",
              "stream": True, "reasoning_effort": "low"}  # fmt: skip
    for order in itertools.permutations(edits):
        assert json.loads(splice(body, merged(order))) == wanted
    assert splice(body, merged(edits)).startswith(b'{"stream_options":{"include_usage":true},"max_completion_tokens":')


@pytest.mark.parametrize(("ceiling", "effort", "budget"), [(4000, "medium", 2000), (20_000, "low", 1024)])
def test_clamp_and_taper_of_the_same_thinking_give_the_lower(talk, ceiling, effort, budget):
    it = one(talk, "anthropic")
    body = b'{"thinking":{"type":"enabled","budget_tokens":30000},"max_tokens":64000}'
    asked = it.read(body)
    cap = it.dialect.cap_output(it.route, asked, body, ceiling)
    ease = it.dialect.lower_effort(it.route, asked, body, effort)
    for edits in ((*cap, *ease), (*ease, *cap)):
        found = json.loads(splice(body, merged(edits)))
        assert (found["max_tokens"], found["thinking"]["budget_tokens"]) == (ceiling, budget)


@pytest.mark.parametrize(
    ("name", "path", "body", "sent", "text"),
    [
        ("openai_chat", "/v1/chat/completions", b'{"model": "a"}', "/v1/chat/completions", b'{"model": "b/\\"c"}'),
        ("openai_chat", "/v1/chat/completions", b"{}", "/v1/chat/completions", b"{}"),
        (
            "gemini",
            "/v1beta/models/a:streamGenerateContent?alt=sse",
            b"{}",
            "/v1beta/models/b/%22c:streamGenerateContent?alt=sse",
            b"{}",
        ),
        (
            "gemini",
            "/v1/models/a:embedContent",
            b'{"model":"models/a"}',
            "/v1/models/b/%22c:embedContent",
            b'{"model":"models/b/\\"c"}',
        ),
        ("gemini", "/v1beta/models", b"{}", "/v1beta/models", b"{}"),
    ],
)
def test_another_model(talk, name, path, body, sent, text):
    it = talk(name, path)
    route, edits = it.dialect.rename(it.route, it.read(body), 'b/"c')
    assert (route.path, splice(body, edits)) == (sent.encode(), text)
    assert (route.dialect, route.upstream) == (it.route.dialect, it.route.upstream)


def test_a_model_in_the_path_is_renamed_and_all_else_of_the_route_stays():
    route = Route(
        *("/v1beta/models/*:generateContent", "gemini", "generate_content", "gemini"),
        *(b"/v1beta/models/old:generateContent?key=k", "r1", "coder", b"0.02"),
    )
    renamed, edits = rename_in_path(route, Asked(model="old"), "new")
    assert renamed.path == b"/v1beta/models/new:generateContent?key=k"
    assert (structs.replace(renamed, path=route.path), edits) == (route, ())
