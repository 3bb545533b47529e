from __future__ import annotations

import importlib.util
import statistics
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Answer, Asked, Call, Request, Route, ToolUse, Trace, Usage, Who
from gateway.policy.estimate import TokenEstimator, expected_input, input_tokens, output_tokens
from gateway.policy.token_families import family

PATH = Path(__file__).parents[2] / "golden" / "estimates" / "calibrate.py"
SPEC = importlib.util.spec_from_file_location("calibrate", PATH)
assert SPEC is not None
assert SPEC.loader is not None
calibrate = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(calibrate)
SAMPLES = list(calibrate.samples())

GPT, CLAUDE = "gpt-4o", "claude-sonnet-4-5"


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def asked(*messages: Any, **facts: Any) -> Asked:
    return Asked(messages=tuple(map(raw, messages)), **facts)


def call(asked: Asked, operation: str = "chat", body: bytes = b"") -> Call:
    return Call(
        id="c",
        request=Request(b"POST", b"/", (), body),
        route=Route("/v1/chat/completions", "openai_chat", operation, "openai", b"/"),
        asked=asked,
        who=Who(),
        trace=Trace(),
        started_at=0,
        began=0,
    )


@pytest.mark.parametrize(
    ("dialect", "most_input", "most_output"),
    [
        ("anthropic", 0.10, 0.10),
        ("gemini", 0.20, 0.10),
        ("openai_chat", 0.10, 0.12),
        ("openai_responses", 0.10, 0.25),
    ],
)
def test_the_median_error_over_the_recordings(dialect: str, most_input: float, most_output: float):
    group = [s for s in SAMPLES if s.dialect == dialect]
    assert len(group) > 50
    assert statistics.median(calibrate.input_errors(s for s in group if s.input_tokens >= 100)) < most_input
    assert statistics.median(calibrate.output_errors(group)) < most_output
    assert statistics.median(calibrate.output_errors(group, sampled=False)) < 0.35


def test_over_all_recordings_the_sum_is_about_right():
    assert calibrate.weighted(SAMPLES) < 0.2


def test_what_the_provider_said_of_the_input_stays_when_a_stream_is_cut():
    start = Usage(500, 1, 400, 20, 0, {"cache_write_1h_tokens": 20})
    text = "The quick brown fox jumps over the lazy dog. " * 20
    found = TokenEstimator().estimate(
        call(asked("x" * 4000, model=CLAUDE)),
        Answer(model=CLAUDE, usage=start, output_chars=len(text), sample=text, complete=False),
    )
    assert msgspec.structs.replace(found, output_tokens=1) == start
    assert 180 <= found.output_tokens <= 260


def test_a_figure_from_the_end_of_an_answer_is_better_than_an_estimate():
    said = Usage(500, 190)
    answer = Answer(model=CLAUDE, usage=said, output_chars=800, complete=False)
    assert TokenEstimator().estimate(call(asked("hi", model=CLAUDE)), answer) is said


def test_without_any_usage_both_sides_are_estimated():
    found = TokenEstimator().estimate(
        call(asked({"role": "user", "content": "What is the capital of France?"}, model=GPT)),
        Answer(output_chars=31, sample="The capital of France is Paris."),
    )
    assert abs(found.input_tokens - 14) <= 2
    assert abs(found.output_tokens - 7) <= 2
    assert found.cache_read_tokens == 0


def test_nothing_produced_is_nothing_billed():
    found = TokenEstimator().estimate(call(asked("hi", model=GPT)), Answer(complete=False))
    assert found.output_tokens == 0
    assert found.input_tokens > 0


def test_the_model_that_answered_counts():
    text = "word " * 200
    by_model = [
        TokenEstimator().estimate(call(asked(text, model=GPT)), Answer(model=model)).input_tokens
        for model in ("", CLAUDE)
    ]
    assert by_model[0] < by_model[1]


def test_embeddings_have_no_template_and_no_output():
    text = "one two three four five six seven eight"
    found = TokenEstimator().estimate(
        call(asked(text, model="text-embedding-3-small"), "embeddings"), Answer(output_chars=9999)
    )
    assert found == Usage(input_tokens=8)
    assert input_tokens(asked(1, 2, 3), "text-embedding-3-small", bare=True) == 3


def test_a_body_no_dialect_could_read_still_has_a_size():
    found = TokenEstimator().estimate(call(Asked(model=GPT), body=b"word " * 100), Answer())
    assert 90 <= found.input_tokens <= 120


@pytest.mark.parametrize("size", [200, 4_000, 200_000])
def test_what_is_expected_at_a_glance_is_near_the_estimate(size: int):
    said = {"role": "user", "content": "The tower in the middle of the town is old. " * (size // 44)}
    question = asked(said, model=GPT)
    body = msgspec.json.encode({"model": GPT, "max_tokens": 100, "messages": [said]})
    full = input_tokens(question, GPT, body)
    assert full < expected_input(call(question, body=body)) < 1.3 * full + 40


def test_nothing_is_expected_of_media_whose_bytes_are_no_text():
    source = {"type": "base64", "media_type": "image/png", "data": "iVBO" * 50_000}
    body = msgspec.json.encode({"messages": [{"role": "user", "content": [{"type": "image", "source": source}]}]})
    assert expected_input(call(asked(), body=body)) == 0


def test_tools_and_schemas_count_once():
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    question = {"role": "user", "content": "hi"}
    bare = input_tokens(asked(question), CLAUDE)
    assert input_tokens(asked(question, tools=b"[]"), CLAUDE) == bare
    assert input_tokens(asked(question, tools=msgspec.json.encode(tools)), CLAUDE) > bare + family(CLAUDE).tools
    schema = raw({"type": "json_schema", "json_schema": {"schema": {"type": "object"}}})
    assert input_tokens(asked(question, fields={"response_format": schema}), GPT) > input_tokens(asked(question), GPT)
    plain = raw({"type": "text"})
    assert input_tokens(asked(question, fields={"response_format": plain}), GPT) == input_tokens(asked(question), GPT)


def test_labels_and_ciphers_are_no_text():
    plain = {"role": "user", "content": [{"type": "text", "text": "hello"}]}
    labelled = {
        "role": "user",
        "content": [{"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}, "signature": "x" * 900}],
    }
    assert input_tokens(asked(labelled), CLAUDE) == input_tokens(asked(plain), CLAUDE)


def test_encrypted_reasoning_counts_until_the_user_speaks_again():
    thought = {"type": "reasoning", "encrypted_content": "x" * 7100, "summary": []}
    user = {"role": "user", "content": "go on"}
    result = {"type": "function_call_output", "call_id": "c", "output": "3"}
    within = input_tokens(asked(user, thought, result), "gpt-5")
    after = input_tokens(asked(user, thought, user), "gpt-5")
    assert within - after > 900


def test_the_arguments_of_a_tool_count_as_json():
    def use(arguments: Any) -> dict[str, Any]:
        return {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": arguments}]}

    small, large = (input_tokens(asked(use(a)), CLAUDE) for a in ({}, {"some_key": 1234567, "other_key": [True] * 50}))
    assert large > small + 50


@pytest.mark.parametrize(
    ("sample", "least", "most"),
    [
        ("The quick brown fox jumps over the lazy dog and keeps on running.", 200, 240),
        ("床前明月光，疑是地上霜。举头望明月，低头思故乡。", 600, 1000),
        ('{"a":1,"b":[2,3],"c":{"d":"e"}}', 450, 800),
    ],
)
def test_the_beginning_of_an_answer_says_how_dense_it_is(sample: str, least: int, most: int):
    assert least <= output_tokens(Answer(output_chars=1000, sample=sample), GPT) <= most


def test_tool_calls_cost_more_than_their_arguments():
    with_call = output_tokens(Answer(output_chars=100, tool_uses=(ToolUse("a", "f"),)), CLAUDE)
    assert with_call > output_tokens(Answer(output_chars=100), CLAUDE) + 30


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "type", "text", "image_url", "source", "data", "input", "parts", "format"]
            ),
            inner
            | st.sampled_from(["image", "document", "input_audio", "audio/wav", "data:image/png;base64,iVBORw0K"]),
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.lists(json_values, max_size=4), st.sampled_from([GPT, CLAUDE, "gemini-2.5-pro", "whatever"]))
def test_any_request_has_a_size_and_nothing_raises(messages: list[Any], model: str):
    assert input_tokens(asked(*messages), model) >= 0


@given(st.binary(max_size=200))
def test_what_is_no_json_counts_as_text(data: bytes):
    assert input_tokens(Asked(messages=(msgspec.Raw(data),)), GPT) >= 0


def test_deep_nesting_is_cut_off():
    assert input_tokens(Asked(messages=(msgspec.Raw(b"[" * 400 + b"]" * 400),)), GPT) < 20
    assert input_tokens(Asked(messages=(msgspec.Raw(b"[" * 100_000),)), GPT) > 0


@pytest.mark.parametrize(
    ("model", "like"),
    [
        ("gpt-4o-mini-2024-07-18", "gpt-4o"),
        ("openai/o4-mini", "gpt-4o"),
        ("openai/gpt-oss-120b", "gpt-oss"),
        ("gpt-3.5-turbo", "davinci-002"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", CLAUDE),
        ("deepseek-ai/DeepSeek-R1", "deepseek-chat"),
        ("magistral-medium", "mistral-large"),
    ],
)
def test_families(model: str, like: str):
    assert family(model) is family(like)
    assert family(model).models
