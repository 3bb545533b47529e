"""One message of a request, as identity needs it: who speaks, which tools were called and answered, what was said.

OpenAI chat messages, Responses input items, Anthropic messages and Gemini contents all become an `Item`. Reading
never raises: what is not understood is an item of role "" without content.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.call import ToolResult
from gateway.dialects.identity_text import digest_text
from gateway.dialects.shape import DECODE_FAULTS, NO_RAW, Shape, is_set

_TEXT_TYPES = frozenset(("text", "input_text", "output_text", "summary_text"))
_TOOL_ROLES = frozenset(("tool", "function"))


class _Function(Struct, gc=False):
    name: Any = None


class _Call(Struct, gc=False):
    id: Any = None
    name: Any = None
    function: _Function | None = None


class _Part(Struct, gc=False):
    """A content block of any dialect."""

    type: Any = None
    text: Any = None
    id: Any = None
    tool_use_id: Any = None
    is_error: Any = None
    thought: Any = None
    functionCall: _Call | None = None
    functionResponse: _Call | None = None


class _Message(Struct, gc=False):
    type: Any = None
    role: Any = None
    name: Any = None
    content: str | list[_Part] | None = None
    parts: list[_Part] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: Any = None
    call_id: Any = None
    id: Any = None
    error: Raw = NO_RAW


_message = Shape(_Message)
_string = msgspec.json.Decoder(str)
_any = msgspec.json.Decoder()
_sorted = msgspec.json.Encoder(order="sorted")


class Item:
    """`canonical`: 16 bytes that change with the meaning of the item, not with `cache_control`, order or spacing."""

    def __init__(self, raw: Raw | bytes) -> None:
        self.role = ""
        self.tool_use_ids: tuple[str, ...] = ()
        self.tool_results: tuple[ToolResult, ...] = ()
        self._texts: list[str] = []
        self._raw = raw

    @cached_property
    def text_digest(self) -> bytes:
        """See `digest_text`; blocks of text are joined without anything between."""
        return digest_text("".join(self._texts))

    @cached_property
    def canonical(self) -> bytes:
        raw = bytes(self._raw)
        try:
            raw = _sorted.encode(_plain(_any.decode(raw)))
        except (*DECODE_FAULTS, TypeError, ValueError):
            pass
        return blake2b(raw, digest_size=16).digest()


def read_item(dialect: str, raw: Raw | bytes) -> Item:
    """Read one element of `Asked.messages` of the dialect by that name."""
    item = Item(raw)
    message = _message.salvage(bytes(raw))
    if message is None:
        _read_string(item, raw)
        return item
    _READERS.get(dialect, _read_chat)(item, message)
    return item


def _read_string(item: Item, raw: Raw | bytes) -> None:
    """A bare string stands for what the user says; anything else is not understood."""
    try:
        item._texts = [_string.decode(raw)]
        item.role = "user"
    except DECODE_FAULTS:
        pass


def _text(value: Any) -> str:
    return value if type(value) is str else ""


def _say(item: Item, content: str | list[_Part] | None) -> None:
    if isinstance(content, str):
        item._texts.append(content)
    elif content:
        item._texts += [
            part.text for part in content if type(part.text) is str and (part.type in _TEXT_TYPES or part.type is None)
        ]


def _read_chat(item: Item, message: _Message) -> None:
    item.role = _text(message.role)
    if item.role in _TOOL_ROLES:
        item.tool_results = (ToolResult(_text(message.tool_call_id), False, _text(message.name)),)
        return
    _say(item, message.content)
    if message.tool_calls:
        item.tool_use_ids = tuple(_text(call.id) for call in message.tool_calls if call.id)


def _read_responses(item: Item, message: _Message) -> None:
    kind = _text(message.type)
    call = _text(message.call_id) or _text(message.id)
    if kind.endswith("_call_output"):
        item.role = "tool"
        failed = is_set(message.error)
        item.tool_results = (ToolResult(call, failed, _text(message.name)),)
    elif kind.endswith("_call") and kind not in _SERVED:
        item.role = "assistant"
        item.tool_use_ids = (call,) if call else ()
    elif kind == "reasoning" or kind.endswith("_call"):
        item.role = "assistant"
    else:
        item.role = _text(message.role)
        _say(item, message.content)


_SERVED = frozenset(
    ("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call", "mcp_call")
)


def _read_anthropic(item: Item, message: _Message) -> None:
    item.role = _text(message.role)
    _say(item, message.content)
    if type(message.content) is not list:
        return
    item.tool_use_ids = tuple(
        _text(part.id) for part in message.content if part.type == "tool_use" and type(part.id) is str
    )
    item.tool_results = tuple(
        ToolResult(_text(part.tool_use_id), part.is_error is True)
        for part in message.content
        if part.type == "tool_result"
    )


def _read_gemini(item: Item, message: _Message) -> None:
    """Gemini calls the assistant `model`; its calls mostly have no ids, so only their results are told by name."""
    item.role = "assistant" if message.role == "model" else _text(message.role) or "user"
    parts = message.parts or []
    item._texts += [part.text for part in parts if type(part.text) is str and part.thought is not True]
    calls = [part.functionCall for part in parts if part.functionCall is not None]
    item.tool_use_ids = tuple(call.id for call in calls if type(call.id) is str and call.id)
    answers = [part.functionResponse for part in parts if part.functionResponse is not None]
    item.tool_results = tuple(ToolResult(_text(call.id), False, _text(call.name)) for call in answers)
    if answers:
        item.role = "tool"


Reader = Callable[[Item, _Message], None]
_READERS: dict[str, Reader] = {
    "openai_chat": _read_chat,
    "openai_completions": _read_chat,
    "openai_responses": _read_responses,
    "anthropic": _read_anthropic,
    "gemini": _read_gemini,
}


def _plain(value: Any) -> Any:
    """Without cache marks and nulls; a lone block of text is its string, as clients write it either way."""
    if isinstance(value, dict):
        kept = {key: _plain(item) for key, item in value.items() if key != "cache_control" and item is not None}
        content = kept.get("content")
        if isinstance(content, list) and len(content) == 1 and _is_text(content[0]):
            kept["content"] = content[0]["text"]
        return kept
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _is_text(block: Any) -> bool:
    return isinstance(block, dict) and block.keys() == {"type", "text"} and block["type"] in _TEXT_TYPES
