"""The newest step of a request, in every dialect: which tools ran, with what arguments, what they gave, what failed."""

from __future__ import annotations

import json
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Asked
from gateway.dialects.steps import READ_LIMIT, canonical, fingerprints, newest_step
from gateway.testing.tool_runs import FORMS, Act, Conversation, Move

DIALECTS = list(FORMS)


def step(dialect, *items):
    return newest_step(dialect, Asked(messages=[msgspec.Raw(json.dumps(item).encode()) for item in items]))


def after(dialect, *moves, prompt="Do the task."):
    talk = Conversation(dialect, "r", prompt=prompt)
    for move in moves:
        talk.take(move)
    call = talk.call(10**18, 1)
    return newest_step(dialect, call.asked)


READ = Act("read", {"path": "a.py", "limit": 20}, "x = 1")


@pytest.mark.parametrize("dialect", DIALECTS)
class TestEveryDialect:
    def test_a_first_request_has_no_step(self, dialect):
        assert after(dialect) is None

    def test_calls_are_paired_with_their_results(self, dialect):
        other = Act("bash", {"command": "ls"}, "a.py")
        found = after(dialect, Move([Act("old", {}, "old")]), Move([READ, other], "Let me look."))
        assert [tool.name for tool in found.tools] == ["read", "bash"]
        assert [tool.failure for tool in found.tools] == [0, 0]
        assert found.text == "Let me look."
        assert (found.tools[0].call, found.tools[0].shape) == fingerprints("read", b'{"limit":20,"path":"a.py"}')

    def test_results_count_by_their_bytes_and_calls_by_name_and_arguments(self, dialect):
        same = after(dialect, Move([READ]))
        again = after(dialect, Move([Act("old", {}, "")]), Move([READ]))
        assert same.tools[0].call == again.tools[0].call
        assert same.tools[0].result == again.tools[0].result
        assert same.key != again.key
        for other in (Act("read", {"path": "b.py", "limit": 20}, "x = 1"), Act("open", READ.arguments, "x = 1")):
            assert after(dialect, Move([other])).tools[0].call != same.tools[0].call
        assert after(dialect, Move([Act("read", READ.arguments, "x = 2")])).tools[0].result != same.tools[0].result

    def test_a_counter_does_not_change_the_shape_of_a_call(self, dialect):
        one, two = (after(dialect, Move([Act("poll", {"n": n}, "wait")])).tools[0] for n in (9, 10))
        assert one.call != two.call
        assert one.shape == two.shape

    def test_the_same_request_again_has_the_same_key(self, dialect):
        assert after(dialect, Move([READ])).key == after(dialect, Move([READ])).key

    def test_failures_are_alike_whatever_numbers_they_tell(self, dialect):
        one, two = (
            after(dialect, Move([Act("sql", {"q": q}, f"Error: timed out after {n} s", True)])).tools[0]
            for q, n in (("a", 30), ("b", 31))
        )
        assert one.failure == two.failure != 0
        other = after(dialect, Move([Act("sql", {"q": "a"}, "Error: permission denied", True)])).tools[0]
        assert other.failure not in (0, one.failure)

    def test_words_only(self, dialect):
        found = after(dialect, Move(text="I am done.", user="Go on."))
        assert found.tools == ()
        assert found.said
        assert found.told
        assert after(dialect, Move(text="I am done.", user="Go on!")).told != found.told
        assert after(dialect, Move(text="I am not.", user="Go on.")).said != found.said

    def test_conversations_of_one_run_are_told_apart_by_what_opens_them(self, dialect):
        one, two = (after(dialect, Move([READ]), prompt=prompt).root for prompt in ("Task one", "Task two"))
        assert one != two
        assert after(dialect, Move([READ]), Move([READ]), prompt="Task one").root == one

    def test_a_window_that_slid_past_the_opening_has_no_root(self, dialect):
        talk = Conversation(dialect, "r", window=2)
        for _ in range(3):
            talk.take(Move([READ]))
        assert newest_step(dialect, talk.call(1, 1).asked).root == 0

    @given(data=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) |
           st.dictionaries(st.sampled_from(["role", "content", "type", "parts", "tool_calls", "function", "id",
                                            "functionCall", "functionResponse", "output", "arguments"])
                           | st.text(), inner)))  # fmt: skip
    def test_never_raises(self, dialect, data):
        raw = json.dumps(data).encode()
        assistant = {"role": "model" if dialect == "gemini" else "assistant", "content": data, "parts": data,
                     "tool_calls": data}  # fmt: skip
        for items in ([raw], [json.dumps(assistant).encode(), raw], [raw, json.dumps(assistant).encode()]):
            newest_step(dialect, Asked(messages=[msgspec.Raw(item) for item in items]))


@pytest.mark.parametrize(
    "garbage", [b"", b"{", b"\xff\xfe", b'{"role":', b'{"role":"user","content":"\xff"}', b"[" * 500]
)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_garbage_is_a_step_without_content(dialect, garbage):
    assert newest_step(dialect, Asked(messages=[msgspec.Raw(garbage)])) is None


def test_other_dialects_have_no_steps():
    assert step("openai_embeddings", {"role": "assistant"}) is None
    assert step("opaque", {"role": "assistant"}) is None


def test_only_the_tail_is_read():
    head = [{"role": "user", "content": "x"}] * (READ_LIMIT + 5)
    assert step("openai_chat", {"role": "assistant", "content": "a"}, *head) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values, max_size=6), st.randoms())
def test_fingerprints_do_not_depend_on_order_or_white_space(arguments, random: Random):
    def shuffled(value):
        if isinstance(value, dict):
            items = list(value.items())
            random.shuffle(items)
            return {key: shuffled(item) for key, item in items}
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    one = json.dumps(arguments).encode()
    two = json.dumps(shuffled(arguments), indent=random.choice((None, 1, 3)), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )
    assert canonical(one) == canonical(two)
    assert fingerprints("f", one) == fingerprints("f", two)


@pytest.mark.parametrize(
    "text", [b"", b"not json", b'{"a":', b"99999999999999999999999999", b"1e999", b'"\\ud800"', b"[" * 2000]
)
def test_arguments_that_are_no_json_count_as_they_are(text):
    assert fingerprints("f", text) == fingerprints("f", b" " + text + b" ")
    assert 0 not in fingerprints("f", text)


@pytest.mark.parametrize(
    ("content", "failed"),
    [
        ("Error: no such file", True),
        ("error", True),
        ("TypeError: x", True),
        ("Traceback (most recent call last):\n", True),
        ("<error>bad</error>", True),
        ("Tool error: bad", True),
        ("Exit code: 1\nWall time: 0.1 s\nOutput:\n", True),
        ('{"error": "not found"}', True),
        ('{"output":"","metadata":{"exit_code":127,"duration_seconds":0.1}}', True),
        ([{"type": "text", "text": "Error: x"}], True),
        ("Exit code: 0\nWall time: 0.1 s", False),
        ('{"error": null, "rows": []}', False),
        ('{"errors": []}', False),
        ('{"error": "", "rows": []}', False),
        ("errors.py:12: class Error", False),
        ("error_rate 0.1", False),
        ("No error was found.", False),
        ("failures.md", False),
        ('{"output":"","metadata":{"exit_code":0,"duration_seconds":0.1}}', False),
        ("", False),
    ],
)  # fmt: skip
def test_what_opens_like_a_failure_is_one(content, failed):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    found = step("openai_chat", answer, {"role": "tool", "tool_call_id": "c", "content": content})
    assert bool(found.tools[0].failure) is failed


def test_marks_of_failure_where_the_api_has_them():
    use = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]}
    back = {"type": "tool_result", "tool_use_id": "t", "content": "hm", "is_error": True}
    assert step("anthropic", use, {"role": "user", "content": [back]}).tools[0].failure
    called = {"type": "mcp_call", "id": "m", "name": "f", "arguments": "{}"}
    assert (
        step("openai_responses", called, {"type": "x_call_output", "call_id": "m", "output": "hm", "error": "no"})
        .tools[0]
        .failure
    )


def test_legacy_functions_and_calls_of_other_kinds():
    answer = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a":1}'}}
    found = step("openai_chat", answer, {"role": "function", "name": "f", "content": "42"})
    assert (found.tools[0].name, found.tools[0].call) == ("f", fingerprints("f", b'{"a":1}')[0])
    shell = {"type": "local_shell_call", "call_id": "c", "action": {"type": "exec", "command": ["ls"]}}
    found = step("openai_responses", shell, {"type": "local_shell_call_output", "call_id": "c", "output": "a"})
    assert found.tools[0].name == "local_shell_call"
    patch = {"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": "*** Begin"}
    found = step("openai_responses", patch, {"type": "custom_tool_call_output", "call_id": "c", "output": "ok"})
    assert found.tools[0].call == fingerprints("apply_patch", b"*** Begin")[0]


def test_results_without_their_call_are_unknown():
    found = step("openai_responses", {"type": "function_call_output", "call_id": "c1", "output": "x"})
    assert [(tool.id, tool.name, tool.call, tool.shape) for tool in found.tools] == [("c1", "", 0, 0)]
    assert found.root == 0


def test_cache_marks_do_not_change_what_opens_a_conversation():
    def opened(*mark):
        first = {"role": "user", "content": [{"type": "text", "text": "Do it.", **dict(mark)}]}
        return step("anthropic", first, {"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}).root

    assert opened() == opened(("cache_control", {"type": "ephemeral"})) != 0
