"""The history that a request carries, as evidence of the run it belongs to. Pure.

A client without ids sends the whole conversation again with every call. What is fresh stands behind the last turn of
the assistant; that turn is an answer that passed here before, and what stands in front of it was the request of that
answer. So the key of an answer is hash(history in front of it, signature of it), known when it is given and again when
it comes back. The signature of a turn is its tool-call ids, or else the digest of its text.

Left out of the hash: leading system messages (prompts like to hold a clock) and `cache_control` marks (clients move
them along). Items are read from the end and only as far as needed; the hash runs over raw JSON at memory speed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, Protocol
from zlib import crc32

from gateway.call import Answer, Asked, ToolResult

READ_LIMIT = 256  # items read from the end while no turn of the assistant shows up
LEADING_LIMIT = 4  # system messages in front
SHAPE_BYTES = 4096  # of the prompt, and of the first message
_ASSISTANT = "assistant"
_SYSTEM = frozenset(("system", "developer"))
_MARK = b'"cache_control"'
_MARKS = re.compile(rb'\s*,\s*"cache_control"\s*:\s*(?:\{[^{}]*\}|null)|"cache_control"\s*:\s*(?:\{[^{}]*\}|null)\s*,?')


class Item(Protocol):
    """One message, input item or content, as its dialect reads it."""

    @property
    def role(self) -> str: ...
    @property
    def tool_use_ids(self) -> Sequence[str]: ...
    @property
    def tool_results(self) -> Sequence[ToolResult]: ...
    @property
    def text_digest(self) -> bytes: ...


ReadItem = Callable[[str, Any], Item]


class Turn:
    """Consecutive items of the assistant: `start` to `end` (exclusive) of the history."""

    __slots__ = ("end", "ids", "start", "texts")

    def __init__(self, end: int) -> None:
        self.start = self.end = end
        self.ids: list[str] = []
        self.texts: list[bytes] = []

    def prepend(self, item: Item) -> None:
        self.start -= 1
        self.ids[:0] = item.tool_use_ids
        if item.text_digest:
            self.texts.insert(0, item.text_digest)

    def signature(self) -> bytes:
        return signature(self.ids, self.texts[-1] if self.texts else b"")


def signature(ids: Sequence[str], text: bytes) -> bytes:
    """What makes an answer recognisable; "" where there is nothing."""
    if ids:
        return b"t" + "\0".join(ids).encode("utf-8", "replace")
    return b"x" + text if text else b""


def signature_of(answer: Answer) -> bytes:
    return signature([use.id for use in answer.tool_uses if use.id], answer.text_digest)


class History:
    """The messages of one request. `last` is the assistant's last turn, `results` are those behind it."""

    def __init__(self, dialect: str, asked: Asked, body: bytes, read: ReadItem) -> None:
        self._dialect = dialect
        self._read = read
        self._items = asked.messages
        self._marked = _MARK in body
        self.count = len(asked.messages)
        self.prompt, self._head = self._leading(asked)
        fresh: list[Item] = []
        self.last = self._back(self.count, fresh)
        self.results = [result for item in fresh for result in item.tool_results]
        self.shape = self._shape()
        self._hash = sha256()
        self._hashed = self._head

    def earlier(self, turn: Turn) -> Turn | None:
        """The assistant's turn before this one."""
        return self._back(turn.start, [])

    def digest(self, end: int) -> bytes:
        """Over the items in front of `end`, system messages left out."""
        if end < self._hashed:
            self._hash, self._hashed = sha256(), self._head
        if end > self._hashed:
            text = b",".join(self._items[self._hashed : end]) + b","
            self._hash.update(_MARKS.sub(b"", text) if self._marked else text)
            self._hashed = end
        return self._hash.copy().digest()

    def _leading(self, asked: Asked) -> tuple[bytes, int]:
        """The system prompt as raw JSON, and how many items in front belong to it."""
        head = 0
        prompt = bytes(asked.system)
        for raw in self._items[:LEADING_LIMIT]:
            if self._read(self._dialect, raw).role not in _SYSTEM:
                break
            prompt = prompt or bytes(raw)
            head += 1
        return prompt, head

    def _back(self, end: int, passed: list[Item]) -> Turn | None:
        """The last turn of the assistant before `end`; the items behind it go into `passed`, in order."""
        turn: Turn | None = None
        for at in range(end - 1, max(self._head, end - READ_LIMIT) - 1, -1):
            item = self._read(self._dialect, self._items[at])
            if item.role == _ASSISTANT:
                turn = turn or Turn(at + 1)
                turn.prepend(item)
            elif turn is not None:
                break
            else:
                passed.append(item)
        passed.reverse()
        return turn

    def _shape(self) -> int:
        first = bytes(self._items[self._head])[:SHAPE_BYTES] if self._head < self.count else b""
        if self._marked:
            first = _MARKS.sub(b"", first)
        return crc32(self.prompt[:SHAPE_BYTES]) << 32 | crc32(first)


def same_prompt(one: int, other: int) -> bool:
    return one >> 32 == other >> 32


def same_first(one: int, other: int) -> bool:
    return (one ^ other) & 0xFFFFFFFF == 0
