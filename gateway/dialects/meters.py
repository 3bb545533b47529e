"""What every meter shares: the draft of an answer, error bodies, and answers that are one JSON document."""

from __future__ import annotations

import json
import re
from typing import Any

from msgspec import Raw, Struct

from gateway.call import Answer, Asked, ToolUse, Usage, UsageSource
from gateway.dialects.identity_text import LIMIT, digest_text
from gateway.dialects.shape import decoded

MAX_BODY = 8 * 1024 * 1024  # of a JSON body that is decoded as a whole
ERROR_BYTES = 64 * 1024  # of the error body of a call that is not read otherwise
TAIL = 256 * 1024  # of a larger one, where its usage may stand
MAX_TOOLS = 512
SAMPLE = 1000  # characters of the text that show how dense in tokens it is
TOKENS, BYTES = 2, 5  # as many tokens to so many UTF-8 bytes of output: more than any recorded answer of some length
TOOL_TOKENS = 50  # around the arguments of a tool call
MAX_MESSAGE = 500  # characters of a provider's error message


class Draft(Struct):
    """Facts gathered while an answer passes; memory is bounded."""

    model: str = ""
    response_id: str = ""
    usage: Usage | None = None
    pricing: dict[str, str] = {}
    finish: dict[int, str] = {}
    parts: tuple[tuple[Usage, str, dict[str, str]], ...] = ()
    error_type: str = ""
    error_message: str = ""
    background: bool = False
    refused: bool = False
    chars: int = 0
    extra: int = 0  # bytes of those characters in UTF-8, beyond one each
    _text: list[str] = []
    _stored: int = 0
    _tools: dict[object, list[str]] = {}
    _items: dict[str, None] = {}

    def text(self, value: str) -> None:
        """Assistant text: counts, and identifies the answer."""
        self.chars += len(value)
        if not value.isascii():
            self.extra += extra_bytes(value)
        if self._stored < LIMIT:
            if not self._text:
                value = value.lstrip()
                if not value:
                    return
            value = value[: LIMIT - self._stored]
            self._text.append(value)
            self._stored += len(value)

    def other(self, value: object) -> None:
        """Reasoning, tool arguments: counts only."""
        if type(value) is str:
            self.chars += len(value)
            if not value.isascii():
                self.extra += extra_bytes(value)

    def refusal(self, value: object) -> None:
        """The model declines, in a place of its own."""
        self.refused = self.refused or (type(value) is str and bool(value))
        self.other(value)

    def tool(self, key: object, id: object, name: object) -> None:
        """A tool call, or what a later chunk adds to it under the same key."""
        known = self._tools.get(key)
        if known is None:
            if len(self._tools) >= MAX_TOOLS:
                return
            known = self._tools[key] = ["", ""]
        if type(id) is str and not known[0]:
            known[0] = id
        if type(name) is str and not known[1]:
            known[1] = name

    @property
    def said(self) -> str:
        """The text so far, up to what is kept of it."""
        return "".join(self._text)

    @property
    def has_tools(self) -> bool:
        return bool(self._tools)

    def item(self, id: object) -> None:
        """An output item that is no more than was made, by its id."""
        if type(id) is str and len(self._items) < MAX_TOOLS:
            self._items[id] = None

    def tokens(self, more: int = 0) -> int:
        """Tokens of the output so far and of `more` bytes of it: an upper estimate for what can be seen, or what the
        provider has stated. Reasoning that is not shown is not in it."""
        seen = (self.chars + self.extra + more) * TOKENS // BYTES + TOOL_TOKENS * len(self._tools)
        return seen if self.usage is None else max(seen, self.usage.output_tokens)

    def named(self, model: object, response_id: object) -> None:
        if model and type(model) is str:
            self.model = model
        if response_id and type(response_id) is str:
            self.response_id = response_id

    def error(self, kind: str, message: str) -> None:
        self.error_type = kind or "error"
        self.error_message = message[:MAX_MESSAGE]

    def answer(self, asked: Asked, complete: bool) -> Answer:
        source = UsageSource.NONE
        if self.usage is not None:
            source = UsageSource.INJECTED if asked.injected else UsageSource.PROVIDER
        text, finish, tools = "".join(self._text), self.finish, self._tools
        return Answer(  # by position: names would cost as much again
            self.model,
            self.response_id,
            self.usage,
            source,
            self.pricing,
            tuple([finish[index] for index in sorted(finish)] if len(finish) > 1 else finish.values()),
            tuple([ToolUse(id, name) for id, name in tools.values() if name or id]) if tools else (),
            self.chars,
            text[:SAMPLE],
            digest_text(text) if text else b"",
            self.parts,
            self.error_type,
            self.error_message,
            complete,
            self.background,
            self.refused,
            items=tuple(self._items),
        )


def extra_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass")) - len(text)


def error_facts(value: Any) -> tuple[str, str] | None:
    """(type, message) of a decoded error body in any provider's shape, or None where it states none."""
    if type(value) is list and value:
        value = value[0]
    if type(value) is not dict:
        return None
    error = value.get("error")
    if type(error) is dict:
        status = error.get("status")  # a word at Gemini, a number elsewhere
        kind = first_text(status if type(status) is str else None, error.get("type"), error.get("code"))
        return kind, first_text(error.get("message"), error.get("detail"))
    if type(error) is str:
        return first_text(value.get("code"), value.get("type")), first_text(value.get("message"), error)
    message = first_text(value.get("message"), value.get("detail"))
    return (first_text(value.get("error_type"), value.get("code"), value.get("type")), message) if message else None


def first_text(*values: Any) -> str:
    """The first value that is a non-empty string, or a number written as one."""
    for value in values:
        if type(value) is str and value:
            return value
        if type(value) is int:
            return str(value)
    return ""


def is_json(body: bytes) -> bool:
    """As most clients take it: with lone surrogates, too, and however deep."""
    try:
        json.loads(body)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def decode_error(raw: bytes | Raw) -> tuple[str, str] | None:
    return error_facts(decoded(raw))


class NoStream:
    """What meters of bodies that are no stream say of beginning and of stopping early."""

    begun = False

    def produced(self, most: int) -> int:
        return 0

    def stop(self, data: bytes) -> int:
        return -1

    def readable(self) -> bool:
        return True

    def garbled(self) -> bool:
        return False


class JsonMeter(NoStream):
    """A body that is one JSON document. Dialects override `read`; errors (status >= 400) are read here."""

    started = False
    terminal = False
    failed = ""
    _size = 0
    _tail: bytes | None = None
    _read = False

    def __init__(self, asked: Asked, status: int) -> None:
        self.draft = Draft()
        self._asked = asked
        self._status = status
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> None:
        if not data:
            return
        self.started = True
        if self._tail is not None:
            self._tail = (self._tail + data)[-TAIL:]
            return
        self._parts.append(data)
        self._size += len(data)
        if self._size > MAX_BODY:
            self._tail = b"".join(self._parts)[-TAIL:]
            self._parts.clear()
        elif len(self._parts) > 4096:
            self._parts = [b"".join(self._parts)]

    def readable(self) -> bool:
        """Is it JSON, or at least the event stream that nobody asked for? Where something was found in it, it is."""
        body, draft = self._take(), self.draft
        if not body or draft.model or draft.usage is not None or draft.chars or draft.response_id or draft.error_type:
            return True
        return is_json(body) or body.startswith(_EVENTS)

    def end(self) -> Answer:
        if not self._read:
            self._take()
        self.failed = self.draft.error_type
        self.terminal = True
        return self.draft.answer(self._asked, complete=True)

    def _take(self) -> bytes:
        """Fill the draft; returns what it was filled from, where that is the whole document."""
        self._read = True
        body = (self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)).removeprefix(_BOM)
        self._parts.clear()
        if self._status >= 400:
            facts = decode_error(body) if body else None
            if facts:
                self.draft.error(*facts)
        elif self._tail is not None:
            self.read_tail(self._tail)
        elif body:
            self.read(body)
        return body

    def read(self, body: bytes) -> None:
        """Fill the draft from a whole document of a successful answer. Must not raise."""

    def read_tail(self, tail: bytes) -> None:
        """Fill the draft from the last bytes of a document too large to decode. Must not raise."""


class OpaqueMeter(NoStream):
    """Reads nothing but the error of a failed call; a stream is complete when its connection ends properly."""

    def __init__(self, asked: Asked, status: int) -> None:
        self.started = False
        self.terminal = False
        self.failed = ""
        self._asked = asked
        self._status = status
        self._body = b""

    def feed(self, data: bytes) -> None:
        self.started = self.started or bool(data)
        if self._status >= 400 and len(self._body) < ERROR_BYTES:
            self._body += data

    def end(self) -> Answer:
        draft = Draft()
        facts = decode_error(self._body) if self._body else None
        if facts:
            draft.error(*facts)
        self.failed = draft.error_type
        self.terminal = True
        return draft.answer(self._asked, complete=True)


_EVENTS = (b"data:", b"event:")
_BOM = b"\xef\xbb\xbf"  # some servers begin JSON with it, and readers of JSON skip it
_OBJECT_START = rb'"%b"\s*:\s*(?=\{)'
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}]', re.DOTALL)


def find_object(text: bytes, key: bytes) -> bytes:
    """The last object under `key` in a piece of JSON text, or b""."""
    found = b""
    for start in re.finditer(_OBJECT_START % key, text):
        depth = 0
        for token in _TOKEN.finditer(text, start.end()):
            depth += {b"{": 1, b"}": -1}.get(token[0], 0)
            if not depth:
                found = text[start.end() : token.end()]
                break
    return found
