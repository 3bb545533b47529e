"""Captured content as span attributes, in the message form of the GenAI conventions.

Bodies of every dialect hold messages in one of a few shapes; they are told apart by their keys alone. What is not
such a body (a stream, a cut or foreign text) is kept as text under a name of ours, a digest likewise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from gateway.recorder.names_span import Span

_DIGEST = b"sha256:"
_json = msgspec.json.Encoder()


def content_attributes(request: bytes, answer: bytes) -> dict[str, Any]:
    """Attributes of captured request and answer bodies; none where nothing was captured."""
    found: dict[str, Any] = {}
    if request:
        found |= _request(_object(request)) or {Span.CONTENT_IN: _text(request)}
    if answer:
        messages = _answer(_object(answer))
        found |= {Span.OUTPUT_MESSAGES: _dump(messages)} if messages else {Span.CONTENT_OUT: _text(answer)}
    return found


def _object(body: bytes) -> dict[str, Any]:
    if body.startswith(_DIGEST):
        return {}
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return {}


def _request(body: Mapping[str, Any]) -> dict[str, Any]:
    messages = _messages(body.get("messages") or body.get("contents") or body.get("input") or body.get("prompt"))
    if not messages:
        return {}
    found = {Span.INPUT_MESSAGES: _dump(messages)}
    system = body.get("system") or body.get("instructions") or body.get("systemInstruction")
    if system:
        found[Span.SYSTEM_INSTRUCTIONS] = _dump(_parts(_inner(system)))
    if body.get("tools"):
        found[Span.TOOL_DEFINITIONS] = _dump(body["tools"])
    return found


def _answer(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """choices[].message, candidates[].content, output[], or a message itself."""
    found = []
    for choice in [*_dicts(body.get("choices")), *_dicts(body.get("candidates"))]:
        message = _message(choice.get("message") or choice.get("content") or choice.get("text"), "assistant")
        message["finish_reason"] = choice.get("finish_reason") or choice.get("finishReason") or ""
        found.append(message)
    if not found and body.get("output"):
        found = _messages(body["output"], "assistant")
    if not found and body.get("role") and body.get("content"):
        found = [{**_message(body, "assistant"), "finish_reason": body.get("stop_reason") or ""}]
    return found


def _messages(items: Any, role: str = "user") -> list[dict[str, Any]]:
    if isinstance(items, str):
        return [_message(items, role)]
    if not isinstance(items, list):
        return []
    return [_message(item, role) for item in items]


def _message(item: Any, role: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        return {"role": role, "parts": _parts(item)}
    parts = _parts(_inner(item))
    if "tool_call_id" in item:  # an OpenAI tool message: its content is the response
        parts = [{"type": "tool_call_response", "id": item["tool_call_id"], "response": item.get("content")}]
    for call in _dicts(item.get("tool_calls")):
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        parts.append(_call(call.get("id"), function.get("name"), function.get("arguments")))
    return {"role": item.get("role") or role, "parts": parts}


def _inner(item: Any) -> Any:
    """What a message holds: `content`, `parts`, or itself where it is a bare item."""
    if not isinstance(item, dict):
        return item
    if "content" in item:
        return item["content"]
    return item.get("parts", [] if "role" in item else [item])


def _parts(content: Any) -> list[dict[str, Any]]:
    if content is None:
        return []
    items: Iterable[Any] = content if isinstance(content, list) else [content]
    return [_part(item) for item in items]


def _part(item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        return {"type": "text", "content": item}
    kind = item.get("type", "")
    for made in (_tool_part(item, kind), _thought_part(item, kind)):
        if made is not None:
            return made
    if isinstance(item.get("text"), str):
        return {"type": "text", "content": item["text"]}
    return {**item, "type": kind or "other"}


def _tool_part(item: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    if kind in ("tool_use", "function_call"):
        return _call(item.get("call_id") or item.get("id"), item.get("name"), item.get("input", item.get("arguments")))
    if kind in ("tool_result", "function_call_output"):
        response = item.get("content", item.get("output"))
        return {
            "type": "tool_call_response",
            "id": item.get("tool_use_id") or item.get("call_id"),
            "response": response,
        }
    if isinstance(item.get("functionCall"), dict):
        call = item["functionCall"]
        return _call(call.get("id"), call.get("name"), call.get("args"))
    if isinstance(item.get("functionResponse"), dict):
        answer = item["functionResponse"]
        return {"type": "tool_call_response", "id": answer.get("id"), "response": answer.get("response")}
    return None


def _thought_part(item: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    if kind == "thinking" or item.get("thought") is True:
        return {"type": "reasoning", "content": item.get("thinking") or item.get("text") or ""}
    return None


def _call(identifier: Any, name: Any, arguments: Any) -> dict[str, Any]:
    return {"type": "tool_call", "id": identifier, "name": name, "arguments": arguments}


def _dicts(items: Any) -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _dump(value: Any) -> str:
    return _json.encode(value).decode()


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")
