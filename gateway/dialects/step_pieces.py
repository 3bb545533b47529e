"""What one item of a request adds to a step, in each dialect. Reading never raises; see gateway.dialects.steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.dialects.shape import DECODE_FAULTS, NO_RAW, Shape, is_set

_string = msgspec.json.Decoder(str)
_sorted = msgspec.json.Encoder(order="sorted")

Use = tuple[str, str, bytes]  # id, name, arguments
Result = tuple[str, str, bytes, bool]  # id, name, content, is_error


class Piece(Struct, gc=False):
    """What one item adds to the step."""

    answer: bool = False  # it is the assistant's
    uses: Sequence[Use] = ()
    results: Sequence[Result] = ()
    text: str = ""
    told: bytes = b""


class _Function(Struct, gc=False):
    name: Any = None
    arguments: Any = None


class _ChatCall(Struct, gc=False):
    id: Any = None
    function: _Function | None = None
    custom: Any = None


class _Chat(Struct, gc=False):
    role: Any = None
    name: Any = None
    content: Raw = NO_RAW
    tool_call_id: Any = None
    tool_name: Any = None  # Ollama
    tool_calls: list[_ChatCall] | None = None
    function_call: _Function | None = None


class _Block(Struct, gc=False):
    type: Any = None
    text: Any = None
    id: Any = None
    name: Any = None
    input: Raw = NO_RAW
    tool_use_id: Any = None
    content: Raw = NO_RAW
    is_error: Any = None


class _Message(Struct, gc=False):
    role: Any = None
    content: str | list[_Block] | None = None


class _Item(Struct, gc=False):
    type: Any = None
    role: Any = None
    call_id: Any = None
    id: Any = None
    name: Any = None
    arguments: Raw = NO_RAW
    input: Raw = NO_RAW
    action: Raw = NO_RAW
    output: Raw = NO_RAW
    error: Raw = NO_RAW
    content: Raw = NO_RAW


class _Called(Struct, gc=False):
    id: Any = None
    name: Any = None
    args: Raw = NO_RAW
    response: Raw = NO_RAW


class _Part(Struct, gc=False):
    text: Any = None
    thought: Any = None
    functionCall: _Called | None = None
    functionResponse: _Called | None = None


class _Content(Struct, gc=False):
    role: Any = None
    parts: list[_Part] | None = None


class ConverseTool(Struct, gc=False):
    """A use of a tool, or the result of one."""

    toolUseId: Any = None
    name: Any = None
    status: Any = None
    input: Raw = NO_RAW
    content: Raw = NO_RAW


class ConverseBlock(Struct, gc=False):
    text: Any = None
    toolUse: ConverseTool | None = None
    toolResult: ConverseTool | None = None


class ConverseMessage(Struct, gc=False):
    role: Any = None
    content: list[ConverseBlock] | None = None


class _Turn(Struct, gc=False):
    role: Any = None
    message: Any = None


_chat = Shape(_Chat)
_converse = Shape(ConverseMessage)
_turn = Shape(_Turn)
_message = Shape(_Message)
_item = Shape(_Item)
_content = Shape(_Content)
_blocks = msgspec.json.Decoder(list[_Block])


def _text(value: Any) -> str:
    return value if type(value) is str else ""


def _bytes(value: Any) -> bytes:
    """Arguments that stand in a string."""
    return value.encode("utf-8", "surrogatepass") if type(value) is str else b""


def _arguments(value: Any) -> bytes:
    """In a string, or as they are: Ollama."""
    return _sorted.encode(value) if type(value) is dict else _bytes(value)


def _inner(raw: Raw) -> bytes:
    """Arguments in a string, or as they are."""
    given = bytes(raw)
    if not given.startswith(b'"'):
        return given
    try:
        return _bytes(_string.decode(given))
    except DECODE_FAULTS:
        return given


def _said(raw: Raw) -> str:
    """The text of an answer's content: a string, or blocks."""
    content = bytes(raw)
    try:
        if content.startswith(b'"'):
            return _string.decode(content)
        if content.startswith(b"["):
            return "".join([_text(block.text) for block in _blocks.decode(content)])
    except DECODE_FAULTS:
        pass
    return ""


def _read_chat(raw: Any) -> Piece:
    message = _chat.salvage(raw)
    if message is None:
        return Piece(told=bytes(raw))
    role = message.role
    if role in ("tool", "function"):
        result = (_text(message.tool_call_id), _text(message.name or message.tool_name), bytes(message.content), False)
        return Piece(results=(result,))
    if role != "assistant":
        return Piece(told=bytes(message.content))
    uses = []
    for call in message.tool_calls or ():
        called = call.function or _Function()
        uses.append((_text(call.id), _text(called.name), _arguments(called.arguments)))
    if (legacy := message.function_call) is not None:
        uses.append(("", _text(legacy.name), _bytes(legacy.arguments)))
    return Piece(True, uses, (), _said(message.content))


def _read_anthropic(raw: Any) -> Piece:
    message = _message.salvage(raw)
    if message is None:
        return Piece(told=bytes(raw))
    answer = message.role == "assistant"
    content = message.content
    if content is None or isinstance(content, str):
        return Piece(answer, text=content or "", told=b"" if answer else _bytes(content))
    text = "".join([block.text for block in content if block.type == "text" and type(block.text) is str])
    if answer:
        uses = [(_text(b.id), _text(b.name), bytes(b.input)) for b in content if b.type == "tool_use"]
        return Piece(True, uses, (), text)
    results = [
        (_text(b.tool_use_id), "", bytes(b.content), b.is_error is True) for b in content if b.type == "tool_result"
    ]
    return Piece(False, (), results, "", _bytes(text))


def _read_responses(raw: Any) -> Piece:
    item = _item.salvage(raw)
    if item is None:
        return Piece(told=bytes(raw))
    kind = _text(item.type)
    identifier = _text(item.call_id) or _text(item.id)
    if kind.endswith("_call_output"):
        return Piece(results=((identifier, _text(item.name), bytes(item.output), is_set(item.error)),))
    if kind.endswith("_call"):
        given = item.arguments if is_set(item.arguments) else item.input if is_set(item.input) else item.action
        return Piece(True, ((identifier, _text(item.name) or kind, _inner(given)),))
    if kind == "reasoning":
        return Piece(True)
    if item.role == "assistant":
        return Piece(True, text=_said(item.content))
    return Piece(told=bytes(item.content))


def _read_gemini(raw: Any) -> Piece:
    content = _content.salvage(raw)
    if content is None:
        return Piece(told=bytes(raw))
    answer = content.role == "model"
    parts = content.parts or ()
    text = "".join([part.text for part in parts if type(part.text) is str and part.thought is not True])
    calls = [part.functionCall for part in parts if part.functionCall is not None]
    answers = [part.functionResponse for part in parts if part.functionResponse is not None]
    return Piece(
        answer,
        [(_text(call.id), _text(call.name), bytes(call.args)) for call in calls],
        [(_text(one.id), _text(one.name), bytes(one.response), False) for one in answers],
        text if answer else "",
        b"" if answer else _bytes(text),
    )


def _read_converse(raw: Any) -> Piece:
    message = _converse.salvage(raw)
    if message is None:
        return Piece(told=bytes(raw))
    answer = message.role == "assistant"
    blocks = message.content or ()
    text = "".join([block.text for block in blocks if type(block.text) is str])
    uses = [one for block in blocks if (one := block.toolUse) is not None]
    results = [one for block in blocks if (one := block.toolResult) is not None]
    return Piece(
        answer,
        [(_text(use.toolUseId), _text(use.name), bytes(use.input)) for use in uses],
        [(_text(one.toolUseId), "", bytes(one.content), one.status == "error") for one in results],
        text if answer else "",
        b"" if answer else _bytes(text),
    )


def _read_cohere(raw: Any) -> Piece:
    """v2 is like chat. A turn of v1 has its text under `message`; the newest stands by itself."""
    turn = _turn.salvage(raw)
    if turn is None or turn.message is None:
        return _read_chat(raw)
    answer = turn.role == "CHATBOT"
    return Piece(answer, text=_text(turn.message) if answer else "", told=b"" if answer else _bytes(turn.message))


READERS: dict[str, Callable[[Any], Piece]] = {
    "openai_chat": _read_chat,
    "openai_responses": _read_responses,
    "anthropic": _read_anthropic,
    "gemini": _read_gemini,
    "bedrock_converse": _read_converse,
    "bedrock_invoke": _read_anthropic,
    "cohere": _read_cohere,
    "ollama": _read_chat,
}
