"""What the user says last, and what the model said: for the cache of similar questions.

A request is cut where a similarity may look: into the text of its last turn, and all the rest, which must be equal to
the last byte. So whatever is not plainly text of the user is a reason to have no such cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from gateway.dialects.replay import attempted, events_of
from gateway.ports import LastTurn

_TOOLS = frozenset(("tool_result", "function_call_output", "functionResponse", "function_response", "tool", "function"))
_decode = msgspec.json.Decoder().decode

Value = Mapping[str, Any]


def refused(why: str) -> LastTurn:
    return LastTurn("", {}, why=why)


def chat(value: Value) -> LastTurn:
    if value.get("store"):
        return refused("stored")  # the provider keeps it under the words of the first who asked
    return _turns(value, "messages", value.get("messages"), "text")


def messages(value: Value) -> LastTurn:
    return _turns(value, "messages", value.get("messages"), "text")


def responses(value: Value) -> LastTurn:
    """Answers are stored by the provider unless the client declines, and their ids can be gone on from."""
    if value.get("store") is not False:
        return refused("stored")
    given = value.get("input")
    if isinstance(given, str):
        return LastTurn(given, {**value, "input": ""})
    return _turns(value, "input", given, "input_text")


def gemini(value: Value) -> LastTurn:
    given = value.get("contents")
    if isinstance(given, dict):
        given = [given]
    if not isinstance(given, list) or not given or not isinstance(given[-1], dict):
        return refused("shape")
    last = given[-1]
    if last.get("role", "user") != "user":
        return refused("tools" if last.get("role") in _TOOLS else "turn")
    parts = last.get("parts")
    if isinstance(parts, dict):
        parts = [parts]
    found = _parts(parts, lambda part: isinstance(part.get("text"), str))
    if isinstance(found, str):
        return refused(found)
    text, hollow = found
    rest = {**value, "contents": [*given[:-1], {**last, "parts": hollow}]}
    return LastTurn(text, rest, before=any([_role(turn) == "model" for turn in given]))


def _turns(value: Value, name: str, given: Any, kind: str) -> LastTurn:
    """A list of turns with role and content, as three of the APIs have it."""
    if not isinstance(given, list) or not given or not isinstance(given[-1], dict):
        return refused("shape")
    last = given[-1]
    if last.get("role") != "user" or last.get("type", "message") != "message":
        return refused("tools" if {last.get("role"), last.get("type")} & _TOOLS else "turn")
    content = last.get("content")
    hollow: Any = ""
    if not isinstance(content, str):
        found = _parts(content, lambda part: part.get("type") == kind and isinstance(part.get("text"), str))
        if isinstance(found, str):
            return refused(found)
        content, hollow = found
    rest = {**value, name: [*given[:-1], {**last, "content": hollow}]}
    return LastTurn(content, rest, before=any([_role(turn) == "assistant" for turn in given]))


def _parts(parts: Any, is_text: Callable[[Value], bool]) -> tuple[str, list[Any]] | str:
    """The text of the last part, and the parts without it; or why not."""
    if not isinstance(parts, list) or not parts or not all([isinstance(part, dict) for part in parts]):
        return "shape"
    for part in parts:
        if not is_text(part):
            return "tools" if part.get("type") in _TOOLS or not _TOOLS.isdisjoint(part) else "media"
    return parts[-1]["text"], [*parts[:-1], {**parts[-1], "text": ""}]


def _role(turn: Any) -> Any:
    return turn.get("role") if isinstance(turn, dict) else None


# -- answers ---------------------------------------------------------------------------------------------------------


def chat_answer(body: bytes) -> str | None:
    return attempted(lambda: _only([choice["message"]["content"] for choice in _decode(body)["choices"]]))


def message_answer(body: bytes) -> str | None:
    return attempted(lambda: _joined(_decode(body)["content"], "text"))


def response_answer(body: bytes) -> str | None:
    def read() -> str:
        items = [item for item in _decode(body)["output"] if item["type"] == "message"]
        return _joined([part for item in items for part in item["content"]], "output_text")

    return attempted(read)


def gemini_answer(body: bytes) -> str | None:
    """Of a document, an event stream, or an array of chunks."""

    def read() -> str:
        start = body.lstrip()[:1]
        found = _decode(body) if start in (b"{", b"[") else events_of(body)
        chunks = found if isinstance(found, list) else [found]
        candidates = [one for chunk in chunks for one in chunk.get("candidates") or ()]
        if any([one.get("index", 0) for one in candidates]):
            raise ValueError("more than one answer")
        parts = [part for one in candidates for part in (one.get("content") or {}).get("parts") or ()]
        return "".join([part["text"] for part in parts if not part.get("thought")])

    return attempted(read)


def _only(texts: Sequence[Any]) -> str:
    (text,) = texts
    if not isinstance(text, str):
        raise ValueError("no text")
    return text


def _joined(parts: Sequence[Value], kind: str) -> str:
    return "".join([part["text"] for part in parts if part["type"] == kind])
