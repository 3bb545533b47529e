"""One message of a request, as identity needs it: who speaks, which tools were called and answered, what was said.

OpenAI chat messages, Responses input items, Anthropic messages and Gemini contents all become an `Item`. Reading
never raises: what is not understood is an item of role "" without content. Where tools stand beside the content (chat,
Responses), the content is read only when somebody asks what was said.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.call import ToolResult
from gateway.dialects.identity_text import digest_text
from gateway.dialects.shape import DECODE_FAULTS, NO_RAW, Shape, is_set
from gateway.dialects.step_pieces import ConverseMessage

_TEXT_TYPES = frozenset(("text", "input_text", "output_text", "summary_text"))
_TOOL_ROLES = frozenset(("tool", "function"))


class _Call(Struct, gc=False):
    id: Any = None
    name: Any = None


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


class _Content(Struct, gc=False):
    role: Any = None
    content: str | list[_Part] | None = None


class _ChatMessage(Struct, gc=False):
    role: Any = None
    name: Any = None
    tool_calls: list[_Call] | None = None
    tool_call_id: Any = None
    tool_name: Any = None  # Ollama


class _ResponsesItem(Struct, gc=False):
    type: Any = None
    role: Any = None
    name: Any = None
    call_id: Any = None
    id: Any = None
    error: Raw = NO_RAW


class _GeminiContent(Struct, gc=False):
    role: Any = None
    parts: list[_Part] | None = None


class _CohereTurn(Struct, gc=False):
    role: Any = None
    message: Any = None


_content = Shape(_Content)
_converse_message = Shape(ConverseMessage)
_chat_message = Shape(_ChatMessage)
_responses_item = Shape(_ResponsesItem)
_gemini_content = Shape(_GeminiContent)
_cohere_turn = Shape(_CohereTurn)
_string = msgspec.json.Decoder(str)
_any = msgspec.json.Decoder()
_sorted = msgspec.json.Encoder(order="sorted")


class Item(Struct):
    """`canonical`: 16 bytes that change with the meaning of the item, not with `cache_control`, order or spacing."""

    _raw: Raw | bytes
    role: str = ""
    tool_use_ids: tuple[str, ...] = ()
    tool_results: tuple[ToolResult, ...] = ()
    _said: str | None = ""  # None: still to be read from the content
    _digest: bytes | None = None

    @property
    def text_digest(self) -> bytes:
        """Of `said`, see `digest_text`."""
        if self._digest is None:
            self._digest = digest_text(self.said)
        return self._digest

    @property
    def said(self) -> str:
        """Its text; blocks of text are joined without anything between."""
        if self._said is None:
            message = _content.salvage(self._raw)
            self._said = _texts(message.content) if message is not None else ""
        return self._said

    @property
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
    if not _READERS.get(dialect, _read_chat)(item, raw):
        _read_string(item, raw)
    return item


def _read_string(item: Item, raw: Raw | bytes) -> None:
    """A bare string stands for what the user says; anything else is not understood."""
    try:
        item._said = _string.decode(raw)
        item.role = "user"
    except DECODE_FAULTS:
        pass


def _text(value: Any) -> str:
    return value if type(value) is str else ""


def _texts(content: str | list[_Part] | None) -> str:
    if isinstance(content, str):
        return content
    parts = content or ()
    return "".join(
        [part.text for part in parts if type(part.text) is str and (part.type in _TEXT_TYPES or part.type is None)]
    )


def _read_chat(item: Item, raw: Raw | bytes) -> bool:
    message = _chat_message.salvage(raw)
    if message is None:
        return False
    item.role = _text(message.role)
    if item.role in _TOOL_ROLES:
        item.tool_results = (ToolResult(_text(message.tool_call_id), False, _text(message.name or message.tool_name)),)
        return True
    item._said = None
    if message.tool_calls:
        item.tool_use_ids = tuple([_text(call.id) for call in message.tool_calls if call.id])
    return True


def _read_responses(item: Item, raw: Raw | bytes) -> bool:
    message = _responses_item.salvage(raw)
    if message is None:
        return False
    kind = _text(message.type)
    if kind.endswith("_call_output"):
        item.role = "tool"
        call = _text(message.call_id) or _text(message.id)
        item.tool_results = (ToolResult(call, is_set(message.error), _text(message.name)),)
    elif kind.endswith("_call") and kind not in _SERVED:
        item.role = "assistant"
        call = _text(message.call_id) or _text(message.id)
        item.tool_use_ids = (call,) if call else ()
    elif kind == "reasoning" or kind.endswith("_call"):
        item.role = "assistant"
    else:
        item.role = _text(message.role)
        item._said = None
    return True


_SERVED = frozenset(
    ("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call", "mcp_call")
)


def _read_anthropic(item: Item, raw: Raw | bytes) -> bool:
    message = _content.salvage(raw)
    if message is None:
        return False
    item.role = _text(message.role)
    content = message.content
    item._said = _texts(content)
    if type(content) is list:
        item.tool_use_ids = tuple(
            [_text(part.id) for part in content if part.type == "tool_use" and type(part.id) is str]
        )
        item.tool_results = tuple(
            [
                ToolResult(_text(part.tool_use_id), part.is_error is True)
                for part in content
                if part.type == "tool_result"
            ]
        )
    return True


def _read_gemini(item: Item, raw: Raw | bytes) -> bool:
    """Gemini calls the assistant `model`; its calls mostly have no ids, so only their results are told by name."""
    message = _gemini_content.salvage(raw)
    if message is None:
        return False
    item.role = "assistant" if message.role == "model" else _text(message.role) or "user"
    parts = message.parts or []
    item._said = "".join([part.text for part in parts if type(part.text) is str and part.thought is not True])
    calls = [part.functionCall for part in parts if part.functionCall is not None]
    item.tool_use_ids = tuple([call.id for call in calls if type(call.id) is str and call.id])
    answers = [part.functionResponse for part in parts if part.functionResponse is not None]
    item.tool_results = tuple([ToolResult(_text(call.id), False, _text(call.name)) for call in answers])
    if answers:
        item.role = "tool"
    return True


def _read_converse(item: Item, raw: Raw | bytes) -> bool:
    message = _converse_message.salvage(raw)
    if message is None:
        return False
    item.role = _text(message.role)
    blocks = message.content or []
    item._said = "".join([block.text for block in blocks if type(block.text) is str])
    item.tool_use_ids = tuple([_text(block.toolUse.toolUseId) for block in blocks if block.toolUse is not None])
    results = [block.toolResult for block in blocks if block.toolResult is not None]
    item.tool_results = tuple([ToolResult(_text(one.toolUseId), one.status == "error") for one in results])
    return True


_TURNS = {"CHATBOT": "assistant", "USER": "user", "SYSTEM": "system", "TOOL": "tool"}  # of Cohere's v1


def _read_cohere(item: Item, raw: Raw | bytes) -> bool:
    """v2 is like chat; a turn of v1 has its text under `message`, and other names for who speaks."""
    turn = _cohere_turn.salvage(raw)
    role = _TURNS.get(_text(turn.role)) if turn is not None else None
    if turn is None or role is None:
        return _read_chat(item, raw)
    item.role, item._said = role, _text(turn.message)
    return True


Reader = Callable[[Item, Raw | bytes], bool]  # False: it is no object
_READERS: dict[str, Reader] = {
    "openai_chat": _read_chat,
    "openai_completions": _read_chat,
    "openai_responses": _read_responses,
    "anthropic": _read_anthropic,
    "gemini": _read_gemini,
    "bedrock_converse": _read_converse,
    "bedrock_invoke": _read_anthropic,
    "cohere": _read_cohere,
    "ollama": _read_chat,
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
