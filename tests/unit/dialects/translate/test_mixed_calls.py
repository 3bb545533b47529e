"""Parallel tool calls whose pieces come mixed, for clients whose streams have one block open at a time."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.translate import turns
from tests.unit.dialects.translate.test_translated_answers import CLIENTS, asking, call, delta, events, sse, streamed

SERIAL = tuple(client for client in CLIENTS if client != "openai_chat")
FIRST = {"city": 'Os"lo\\', "at": [{"x": "}]"}]}
SECOND = {"city": "Rome"}


def pieces(index: int, arguments: str, width: int) -> list[dict[str, Any]]:
    return [call(index, arguments[at : at + width]) for at in range(0, len(arguments), width)]


def put_together(client: str, found: list[Any]) -> list[tuple[str, str]]:
    """(kind, content) of the parts in their order: what the client's SDK makes of the events."""
    assert not any("error" in event for event in found if isinstance(event, dict)), found
    return {"anthropic": _blocks, "openai_responses": _items, "gemini": _parts, "openai_chat": _deltas}[client](found)


def _blocks(found: list[Any]) -> list[tuple[str, str]]:
    said: list[tuple[str, str]] = []
    opened = -1
    for event in found:
        if event["type"] == "content_block_start":
            assert opened == -1
            opened = event["index"]
            assert opened == len(said)
            block = event["content_block"]
            said.append((block.get("name", block["type"]), ""))
        elif event["type"] == "content_block_delta":
            assert opened == event["index"]
            kind, text = said[-1]
            said[-1] = (kind, text + (event["delta"].get("partial_json") or event["delta"].get("text") or ""))
        elif event["type"] == "content_block_stop":
            assert opened == event["index"]
            opened = -1
    assert found[-1]["type"] == "message_stop"
    return said


def _items(found: list[Any]) -> list[tuple[str, str]]:
    last = found[-1]
    assert last["type"] == "response.completed"
    return [
        (item.get("name", "text"), item["arguments"] if "arguments" in item else item["content"][0]["text"])
        for item in last["response"]["output"]
    ]


def _parts(found: list[Any]) -> list[tuple[str, str]]:
    said: list[tuple[str, str]] = []
    for part in [part for event in found for part in event["candidates"][0]["content"]["parts"]]:
        if "functionCall" in part:
            said.append((part["functionCall"]["name"], json.dumps(part["functionCall"]["args"])))
        elif part["text"] and said and said[-1][0] == "text":
            said[-1] = ("text", said[-1][1] + part["text"])
        elif part["text"]:
            said.append(("text", part["text"]))
    return said


def _deltas(found: list[Any]) -> list[tuple[str, str]]:
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for one in [choice["delta"] for event in found if event != b"[DONE]" for choice in event["choices"]]:
        for piece in one.get("tool_calls", ()):
            names.setdefault(piece["index"], piece["function"].get("name"))
            arguments[piece["index"]] = arguments.get(piece["index"], "") + piece["function"]["arguments"]
    return [(names[index], arguments[index]) for index in sorted(names)]


def calls_of(client: str, found: list[Any]) -> list[tuple[str, Any]]:
    return [(name, json.loads(text)) for name, text in put_together(client, found) if name != "text"]


def begin(index: int, name: str) -> dict[str, Any]:
    return call(index, id=f"call_{name}", name=name)


@pytest.mark.parametrize("width", [1, 3, 1000])
@pytest.mark.parametrize("client", CLIENTS)
def test_pieces_in_turn(client, width):
    first, second = pieces(0, json.dumps(FIRST), width), pieces(1, json.dumps(SECOND), width)
    mixed = [begin(0, "look"), begin(1, "see")]
    for at in range(max(len(first), len(second))):
        mixed += [*second[at : at + 1], *first[at : at + 1]]
    found, translator = streamed(client, "openai_chat", delta(content="So."), *mixed, delta("tool_calls"), b"[DONE]")
    assert translator.done
    assert not translator.failed
    assert calls_of(client, found) == [("look", FIRST), ("see", SECOND)]


@given(st.randoms(use_true_random=False), st.integers(1, 5), st.sampled_from(SERIAL))
def test_any_order_of_any_pieces(dice, count, client):
    """Each call keeps its own pieces in their order; text comes in between, and some calls have no arguments."""
    said = [{"n": number, "t": dice.choice(['"', "\\", "{", "[]", "\\u007d", "ü"]) * 2} for number in range(count)]
    lines = []
    for number in range(count):
        text = json.dumps(said[number], ensure_ascii=dice.random() < 0.5)
        if dice.random() < 0.2:
            said[number], text = {}, ""
        lines.append([begin(number, f"f{number}"), *pieces(number, text, dice.randint(1, 9))])
    values: list[Any] = []
    begun = 0
    while any(lines):
        number = dice.randrange(min(begun + 1, count))  # calls begin in their order
        begun = max(begun, number + 1)
        if lines[number]:
            values.append(lines[number].pop(0))
        if dice.random() < 0.1:
            values.append(delta(content="-"))
    found, translator = streamed(client, "openai_chat", *values, delta("tool_calls"), b"[DONE]")
    assert translator.done
    assert calls_of(client, found) == [(f"f{number}", said[number]) for number in range(count)]
    told = "".join([text for name, text in put_together(client, found) if name == "text"])
    assert told == "-" * sum(value["choices"][0]["delta"].get("content") == "-" for value in values)


def test_text_within_a_call_follows_it():
    values = [begin(0, "look"), call(0, '{"a"'), delta(content="Hm."), call(0, ":1}"), delta("tool_calls"), b"[DONE]"]
    for client in SERIAL:
        found, _ = streamed(client, "openai_chat", *values)
        assert [name for name, _ in put_together(client, found)] == ["look", "text"]


def test_what_does_not_have_to_wait_is_said_at_once():
    translator = asking("anthropic", "openai_chat").stream()
    translator.feed(sse(begin(0, "look"), call(0, '{"a":1}')))
    assert b'"see"' in translator.feed(sse(begin(1, "see")))
    assert b'"partial_json":"{' in translator.feed(sse(call(1, "{")))
    assert translator.feed(sse(begin(2, "smell"), call(2, "{}"))) == b""
    assert b'"smell"' in translator.feed(sse(call(1, "}")))


def test_blocks_of_messages_that_are_mixed():
    """The API itself never does it; servers that speak it may."""
    blocks = [{"type": "tool_use", "id": f"t{at}", "name": name, "input": {}} for at, name in enumerate(("f", "g"))]
    deltas = [(0, "{"), (1, '{"b":'), (0, '"a":1}'), (1, "2}")]
    values = [
        {"type": "message_start", "message": {"id": "m1", "model": "claude", "usage": {"input_tokens": 1}}},
        *({"type": "content_block_start", "index": at, "content_block": block} for at, block in enumerate(blocks)),
        *(
            {"type": "content_block_delta", "index": at, "delta": {"type": "input_json_delta", "partial_json": text}}
            for at, text in deltas
        ),
        *({"type": "content_block_stop", "index": at} for at in (0, 1)),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]
    for client in ("openai_chat", "openai_responses", "gemini"):
        found, _ = streamed(client, "anthropic", *values)
        assert calls_of(client, found) == [("f", {"a": 1}), ("g", {"b": 2})]


def test_calls_of_several_choices_do_not_wait_for_each_other():
    def piece(choice: int, arguments: str, **fields: Any) -> dict[str, Any]:
        function = {"arguments": arguments, **fields}
        return delta(index=choice, tool_calls=[{"index": 0, "id": f"c{choice}", "function": function}])

    values = [piece(0, "{", name="f"), piece(1, "{", name="g"), piece(0, "}"), piece(1, "}")]
    ends = [delta("tool_calls", index=0), delta("tool_calls", index=1), b"[DONE]"]
    found, translator = streamed("gemini", "openai_chat", *values, *ends)
    assert translator.done
    said = [(one["index"], part) for event in found for one in event["candidates"] for part in one["content"]["parts"]]
    assert [(index, part["functionCall"]["name"]) for index, part in said if "functionCall" in part] == [
        (0, "f"),
        (1, "g"),
    ]


def test_arguments_that_never_end_hold_the_others_to_the_end():
    values = [begin(0, "look"), call(0, '{"a"'), begin(1, "see"), call(1, "{}"), delta("length"), b"[DONE]"]
    found, translator = streamed("anthropic", "openai_chat", *values)
    assert translator.done
    assert put_together("anthropic", found) == [("look", '{"a"'), ("see", "{}")]


@pytest.mark.parametrize("client", SERIAL)
def test_what_is_held_has_a_bound(client, monkeypatch):
    monkeypatch.setattr(turns, "MAX_HELD", 1000)
    translator = asking(client, "openai_chat").stream()
    body = translator.feed(sse(begin(0, "look"), begin(1, "see"), call(1, "x" * 1100)))
    assert translator.failed
    assert "too long to be put in order" in json.dumps(events(body))


def test_arguments_behind_a_whole_object_are_an_error_once_others_have_begun():
    values = [begin(0, "look"), call(0, "{}"), begin(1, "see"), call(0, " \n"), call(1, "{}")]
    found, translator = streamed("anthropic", "openai_chat", *values, delta("tool_calls"), b"[DONE]")
    assert calls_of("anthropic", found) == [("look", {}), ("see", {})]  # white space says nothing
    _, translator = streamed("anthropic", "openai_chat", *values[:3], call(0, "{}"), b"[DONE]")
    assert translator.failed
