"""The newest step of an agent, read from the tail of a request: its last answer and what came back. Pure.

Rules
1. Only the tail is read: from the end to where the last turn of the assistant begins, and the head of the message that
   opens the conversation. The cost does not grow with the history.
2. Reading never raises. What is not understood is a step without content, which alarms nobody.
3. Arguments count by their meaning (order of keys and white space do not), results by their bytes.
4. Where the API has no mark for failure, a result that opens like one is taken for one (`Error: ...`, `{"error": ...`,
   `Exit code: 1`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

import msgspec
from msgspec import Raw, Struct

from gateway.call import Asked, Step, ToolTurn
from gateway.dialects.shape import DECODE_FAULTS, NO_RAW, Shape, is_set

READ_LIMIT = 128  # items read from the end
TEXT_LIMIT = 4096  # characters of the answer's text that are kept
OPENERS, OPENING_ENDS = 3, 40  # a conversation of so few items may just begin; bytes in which an item says so
OPENING = 512  # bytes of the opening message that count
_ENDS = 64  # bytes at both ends of an item in which its role stands
_DIGITS = b"0123456789"
_HEAD, _TAIL = 200, 96  # bytes of a result in which it says that it is a failure

_NOT = rb"(?![\w./-])"  # `errors.py:12` is no error
_FAILED = re.compile(
    rb'(?:\[?\{"type": ?"(?:input_|output_)?text", ?"text": ?)?[\s"\'\[{<(\\]*'
    rb"(?:(?:tool|command|execution|runtime)[ _])?"
    rb"(?:[a-z]*error" + _NOT + rb'(?!\\*"?\s*:\s*(?:null|false|0|\[\]|\{\}|\\*"\\*"))|'
    rb"failed" + _NOT + rb"|failure" + _NOT + rb"|fatal:|exception" + _NOT + rb"|traceback \(|permission denied|"
    rb"no such file|time(?:d )?out" + _NOT + rb"|exit code:? -?[1-9])",
    re.IGNORECASE,
)
_EXITED = re.compile(rb'exit_?code\\*"\s*:\s*-?[1-9]', re.IGNORECASE)
_ROLES = re.compile(
    rb'"role"\s*:\s*"(system|developer|assistant|model|tool|function)"|"type"\s*:\s*"\w+_(?:call|result)'
)
_SYSTEM = (b"system", b"developer")
_SYSTEM_SAYS = (b'{"role":"system"', b'{"role": "system"')
_USER = b'{"role":"user"'
_USER_SAYS = (b'{"role":"user","content":"', b'{"role": "user", "content": "')
_OPENS = (*_SYSTEM_SAYS, *_USER_SAYS)
_MARK = re.compile(rb',?\s*"cache_control"\s*:\s*\{[^{}]*\}')

_any = msgspec.json.Decoder()
_string = msgspec.json.Decoder(str)
_sorted = msgspec.json.Encoder(order="sorted")
_UNSORTED = (*DECODE_FAULTS, TypeError, ValueError, OverflowError)


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


_chat = Shape(_Chat)
_message = Shape(_Message)
_item = Shape(_Item)
_content = Shape(_Content)
_blocks = msgspec.json.Decoder(list[_Block])


def newest_step(dialect: str, asked: Asked) -> Step | None:
    """What came since the answer before; None for a first request, and where the dialect has no conversations."""
    items = asked.messages
    read = _READERS.get(dialect)
    if read is None or not items or (len(items) <= OPENERS and all(map(_opens, items))):
        return None
    uses: list[Use] = []
    results: list[Result] = []
    text, told, answered, begin = "", 0, False, 0
    for at in range(len(items) - 1, max(0, len(items) - READ_LIMIT) - 1, -1):
        if answered and memoryview(items[at])[:14] == _USER:
            break
        piece = read(items[at])
        if piece.answer:
            answered, begin = True, at
            uses[:0] = piece.uses
            text = piece.text or text
        elif answered:
            break
        else:
            results[:0] = piece.results
            told = crc32(piece.told, told) if piece.told else told
    if not answered and not results:
        return None
    tools, key = _paired(uses, results) if results else ((), 0)
    said = crc32(text.encode("utf-8", "replace")) if text else 0
    key = (key + told * 3 + said * 5 + len(items)) & 0xFFFF_FFFF
    last, before = _joint(items[-1]), _joint(items[begin - 1]) if begin else 0
    return Step(tools, told, said, text[:TEXT_LIMIT], key, _root(items), last, before)


def _opens(raw: Any) -> bool:
    """Is it a plain system prompt, or plain text of the user? Then there is no need to read it for steps."""
    return bytes(memoryview(raw)[:OPENING_ENDS]).startswith(_OPENS)


def _paired(uses: list[Use], results: Sequence[Result]) -> tuple[tuple[ToolTurn, ...], int]:
    """Each result with the call it answers: by id, or by name and order where there are no ids. And a sum of all."""
    found = []
    key = 0
    for identifier, name, content, failed in results:
        called, call, shape = name, 0, 0
        for use in uses:
            if use[0] == identifier if identifier else use[1] == name:
                uses.remove(use)
                called = use[1]
                call, shape = fingerprints(called, use[2])
                break
        result, failure = crc32(content), 0
        if (
            failed
            or _FAILED.match(content, 0, _HEAD)
            or (b"exit" in content[-_TAIL:] and _EXITED.search(content, len(content) - _TAIL))
        ):
            failure = crc32(content.translate(None, _DIGITS), crc32(called.encode("utf-8", "replace"))) or 1
        key = key * 31 + crc32(identifier.encode("utf-8", "replace"), result)
        found.append(ToolTurn(identifier, called, call, shape, result, failure))
    return tuple(found), key


def fingerprints(name: str, arguments: bytes) -> tuple[int, int]:
    """Of a tool call, exact and without digits; neither is 0."""
    start = crc32(name.encode("utf-8", "replace"))
    arguments = canonical(arguments)
    return crc32(arguments, start) or 1, crc32(arguments.translate(None, _DIGITS), start) or 1


def canonical(arguments: bytes) -> bytes:
    """JSON with its keys in order and no white space between; what is no JSON, without white space at the ends."""
    try:
        return _sorted.encode(_any.decode(arguments))
    except _UNSORTED:
        return arguments.strip()


def _root(items: Sequence[Any]) -> int:
    """Tells parallel conversations of one run apart. 0 where the window has slid past the opening message."""
    for raw in items[:4]:
        view = memoryview(raw)
        text = bytes(view[:OPENING])
        if text.startswith(_SYSTEM_SAYS):
            continue
        if not text.startswith(_USER_SAYS):
            role = _ROLES.search(text, 0, _ENDS) or _ROLES.search(bytes(view[-_ENDS:]))
            if role is not None:
                if role[1] in _SYSTEM:
                    continue
                return 0
        return crc32(_MARK.sub(b"", text) if text.find(b"cache_control") >= 0 else text)
    return 0


def _joint(raw: Any) -> int:
    """Of an item, by its ends: where its ids stand."""
    view = memoryview(raw)
    text = bytes(view[:OPENING]) + bytes(view[OPENING:][-OPENING:])
    return crc32(_MARK.sub(b"", text) if text.find(b"cache_control") >= 0 else text) or 1


# -- the dialects


def _text(value: Any) -> str:
    return value if type(value) is str else ""


def _bytes(value: Any) -> bytes:
    """Arguments that stand in a string."""
    return value.encode("utf-8", "surrogatepass") if type(value) is str else b""


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
        result = (_text(message.tool_call_id), _text(message.name), bytes(message.content), False)
        return Piece(results=(result,))
    if role != "assistant":
        return Piece(told=bytes(message.content))
    uses = []
    for call in message.tool_calls or ():
        called = call.function or _Function()
        uses.append((_text(call.id), _text(called.name), _bytes(called.arguments)))
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


_READERS: dict[str, Callable[[Any], Piece]] = {
    "openai_chat": _read_chat,
    "openai_responses": _read_responses,
    "anthropic": _read_anthropic,
    "gemini": _read_gemini,
}
