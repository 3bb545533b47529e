"""Tools that a request declares in the midst of its messages: `tool_addition` blocks of Anthropic's, `additional_tools`
items of the Responses API. They mean what they would mean in `tools`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Raw

MARKS = (b"tool_addition", b"additional_tools")

_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def inline_tools(messages: Iterable[Raw]) -> bytes:
    """Their definitions as one JSON array, as `tools` has them; b"" where there are none."""
    found = [tool for message in messages if _may_hold(bytes(message)) for tool in _definitions(_decoded(message))]
    return msgspec.json.encode(found) if found else b""


def declares_tools(message: Any) -> bool:
    return next(_definitions(message), None) is not None


def _declared(value: Any) -> list[Any]:
    """The definitions that one block or item holds by itself."""
    if value.get("type") == "additional_tools":
        tools = value.get("tools")
        return tools if isinstance(tools, list) else [tools]
    tool = value.get("tool") if value.get("type") == "tool_addition" else None
    return [tool["definition"]] if isinstance(tool, dict) and "definition" in tool else []


def _may_hold(message: bytes) -> bool:
    return MARKS[0] in message or MARKS[1] in message or b"\\u" in message


def _definitions(message: Any) -> Iterator[Any]:
    if not isinstance(message, dict):
        return
    yield from _declared(message)
    content = message.get("content")
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict):
            yield from _declared(block)


def _decoded(raw: Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except _FAULTS:
        return None
