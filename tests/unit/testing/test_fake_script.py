"""Directives in a prompt or header decide what the fake model does, step by step."""

import json
import random

import pytest

from gateway.testing.fake_script import Ask, Turn, answer, current, parse, sentences
from gateway.testing.fake_tokens import count

TOOLS = {"Bash": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}}


def ask(*turns: Turn, **more: object) -> Ask:
    return Ask("openai", "m", list(turns), "prompt", **more)  # type: ignore[arg-type]


def reply(*turns: Turn, **more: object):  # type: ignore[no-untyped-def]
    return answer(ask(*turns, **more), random.Random(1))


def test_text_without_directives_has_no_steps() -> None:
    assert parse("nothing [[here]] to [see]") == []


def test_a_step_holds_everything_until_then() -> None:
    first, second = parse('a [[think why]] [[tool f {"x": [[1], "]]"]}]] [[tool g]] [[wait 1.5]] [[then]] [[say done]]')
    assert [(t.name, t.arguments) for t in first.tools] == [("f", {"x": [[1], "]]"]}), ("g", {})]
    assert (first.think, first.wait, first.say) == ("why", 1.5, None)
    assert second.say == "done"


def test_a_fault_takes_its_numbers() -> None:
    (step,) = parse("[[fault cut after=7 times=2 retry_after=0.5]]")
    assert step.fault is not None
    assert (step.fault.kind, step.fault.after, step.fault.times, step.fault.retry_after) == ("cut", 7, 2, 0.5)


@pytest.mark.parametrize(
    "text", ["[[say never ends", "[[tool f {broken]]", '[[tool f {"a": 1}', "[[fault cut after=x]]"]
)
def test_a_malformed_directive_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)


def test_the_step_is_the_number_of_tool_rounds_since_the_script() -> None:
    script = Turn("user", "[[tool Bash {}]] [[then]] [[say second]]")
    rounds = [Turn("assistant", calls=1), Turn("user", results=("ok",))]
    assert current(ask(script)).tools[0].name == "Bash"  # type: ignore[union-attr]
    assert current(ask(script, *rounds)).say == "second"  # type: ignore[union-attr]
    assert current(ask(script, *rounds, *rounds)) is None


def test_a_script_that_ended_does_not_start_again() -> None:
    past = [Turn("user", "[[say once]]"), Turn("assistant", "once"), Turn("user", "and now?")]
    assert current(ask(*past)) is None


def test_reminders_of_the_client_between_prompt_and_answer_do_not_matter() -> None:
    turns = [Turn("user", "[[say hello]]"), Turn("user", "a reminder without a script")]
    assert current(ask(*turns)).say == "hello"  # type: ignore[union-attr]


def test_a_header_outranks_the_prompt() -> None:
    assert reply(Turn("user", "[[say prompt]]"), headers={"x-fake": "[[say header]]"}).text == "header"


def test_tools_are_called_only_where_they_are_offered() -> None:
    turn = Turn("user", '[[tool Bash {"command": "ls"}]]')
    offered, without = reply(turn, tools=TOOLS), reply(turn)
    assert (offered.stop, offered.calls[0].arguments) == ("tool", {"command": "ls"})
    assert (without.stop, without.calls) == ("stop", [])
    assert without.text
    assert reply(turn, tools=TOOLS, tool_choice="none").calls == []


@pytest.mark.parametrize("choice", ["required", "Bash"])
def test_a_forced_tool_gets_arguments_by_its_schema(choice: str) -> None:
    forced = reply(Turn("user", "go"), tools=TOOLS, tool_choice=choice)
    assert forced.calls[0].name == "Bash"
    assert isinstance(forced.calls[0].arguments["command"], str)


def test_results_are_told_when_the_script_has_no_more_to_say() -> None:
    turns = [Turn("user", "[[tool Bash {}]]"), Turn("assistant", calls=1), Turn("user", results=("marker-42\n", "b"))]
    assert reply(*turns, tools=TOOLS).text == "The tools answered: marker-42 | b"


def test_structured_output_is_json() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert isinstance(json.loads(reply(Turn("user", "n?"), schema=schema).text)["n"], int)


def test_max_tokens_cuts_thinking_first_and_then_text() -> None:
    cut = reply(Turn("user", "[[tokens 50]] [[think one two three]]"), max_tokens=10)
    assert (count(cut.thinking), count(cut.text), cut.stop) == (3, 7, "length")
    assert reply(Turn("user", "[[tokens 50]]"), max_tokens=50).stop == "stop"


def test_generated_text_has_exactly_the_tokens_asked_for() -> None:
    for size in (1, 2, 17, 400):
        assert count(sentences(random.Random(size), size)) == size


def test_the_same_seed_gives_the_same_reply() -> None:
    assert reply(Turn("user", "hi")) == reply(Turn("user", "hi"))
