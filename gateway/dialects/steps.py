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
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import msgspec

from gateway.call import Asked, Step, ToolTurn
from gateway.dialects.shape import DECODE_FAULTS
from gateway.dialects.step_pieces import READERS, Result, Use

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
_sorted = msgspec.json.Encoder(order="sorted")
_UNSORTED = (*DECODE_FAULTS, TypeError, ValueError, OverflowError)


def newest_step(dialect: str, asked: Asked) -> Step | None:
    """What came since the answer before; None for a first request, and where the dialect has no conversations."""
    items = asked.messages
    read = READERS.get(dialect)
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
