"""The history that a request carries, as evidence of the run it belongs to. Pure.

A client without ids sends the whole conversation again with every call. What is fresh stands behind the last turn of
the assistant; that turn is an answer that passed here before, and what stands in front of it was the request of that
answer. So the key of an answer is hash(history in front of it, signature of it), known when it is given and again when
it comes back. The signature of a turn is its tool-call ids, or else the digest of its text.

Left out of the hash: leading system messages (prompts like to hold a clock) and `cache_control` marks (clients move
them along). Items are read from the end and only as far as needed. What stands next to the answer is hashed as it is;
what stands further in front comes in by its length and CRC, which is several times as fast over a large body.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from struct import Struct as Layout
from typing import Any, Protocol
from zlib import crc32

from gateway.call import Answer, Asked, ToolResult

READ_LIMIT = 256  # items read from the end while no turn of the assistant shows up
LEADING_LIMIT = 4  # system messages in front
RECENT_ITEMS, RECENT_BYTES = 4, 2048  # at the end of a history: what is hashed as it is
CHUNK = 16  # items summed up at a time; where each chunk ends, a second look at an earlier turn may start
SHAPE_BYTES = 4096  # of the prompt, and of the first message
_ASSISTANT = "assistant"
_FAR = Layout("<QI")
_SYSTEM = frozenset(("system", "developer"))
_LIKE_SYSTEM = (b'{"role":"system"', b'{"role": "system"')
_LIKE_USER = (b'{"role":"user","content":"', b'{"role": "user", "content": "')  # a plain text: it holds no tools
_LIKE_ENDS = 32
_MARK = b'"cache_control"'
_MARK_VALUE = re.compile(rb"\s*:\s*(?:\{[^{}]*\}|null)\s*")


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

    __slots__ = ("_items", "end", "ids", "start")

    def __init__(self, end: int) -> None:
        self.start = self.end = end
        self.ids: list[str] = []
        self._items: list[Item] = []

    def prepend(self, item: Item) -> None:
        self.start -= 1
        self.ids[:0] = item.tool_use_ids
        self._items.append(item)

    def text(self) -> bytes:
        """Digest of the last text in it, or ""."""
        for item in self._items:
            if item.text_digest:
                return item.text_digest
        return b""

    def signature(self) -> bytes:
        return signature(self.ids, b"" if self.ids else self.text())


def signature(ids: Sequence[str], text: bytes) -> bytes:
    """What makes an answer recognisable; "" where there is nothing."""
    if ids:
        return b"t" + "\0".join(ids).encode("utf-8", "replace")
    return b"x" + text if text else b""


def signature_of(answer: Answer) -> bytes:
    return signature([use.id for use in answer.tool_uses if use.id], answer.text_digest)


class History:
    """The messages of one request. `last` is the assistant's last turn, `results` are those behind it."""

    __slots__ = (
        "_dialect",
        "_head",
        "_items",
        "_opening",
        "_plain",
        "_read",
        "_shape",
        "_sums",
        "count",
        "last",
        "prompt",
        "results",
    )

    def __init__(self, dialect: str, asked: Asked, read: ReadItem) -> None:
        self._dialect = dialect
        self._read = read
        self._items = asked.messages
        self.count = len(self._items)
        self._opening: Item | None = None
        self._plain = -1  # index of the first message, where it is a plain text of the user
        self.prompt = asked.system[:SHAPE_BYTES]
        self._head = self._skip_system()
        self.results: list[ToolResult] = []
        self.last = self._back(self.count, self.results)
        self._shape = -1
        self._sums: list[tuple[int, int, int]] = []  # (end, bytes, CRC) of beginnings of the history, in order

    @property
    def shape(self) -> int:
        """32 bits over the head of the prompt, and 32 over that of the first message."""
        if self._shape < 0:
            first = bytes(self._items[self._head])[:SHAPE_BYTES] if self._head < self.count else b""
            self._shape = _sum_of(self.prompt) << 32 | crc32(unmarked(first))
        return self._shape

    def earlier(self, turn: Turn) -> Turn | None:
        """The assistant's turn before this one."""
        return self._back(turn.start, [])

    def trail(self, end: int) -> bytes:
        """What is to be hashed for the items in front of `end`, system messages left out."""
        near = max(self._head, end - RECENT_ITEMS)
        text = unmarked(b",".join(self._items[near:end]))
        size, total = self._sum(near) if near > self._head else (0, 0)
        if len(text) > RECENT_BYTES:
            size, total = size + len(text), crc32(text, total)
            text = text[-RECENT_BYTES:]
        return _FAR.pack(size, total) + text

    def _sum(self, end: int) -> tuple[int, int]:
        """Bytes and CRC of the items in front of `end`."""
        sums = self._sums
        at, size, total = self._head, 0, 0
        for known in reversed(sums):
            if known[0] <= end:
                at, size, total = known
                break
        while at < end:
            upto = min(at + CHUNK, end)
            text = unmarked(b",".join(self._items[at:upto])) + b","
            at, size, total = upto, size + len(text), crc32(text, total)
            if not sums or at > sums[-1][0]:
                sums.append((at, size, total))
        return size, total

    def _skip_system(self) -> int:
        """How many items in front make up the system prompt, which is taken from them where the body has no other."""
        for at in range(min(LEADING_LIMIT, self.count)):
            raw = self._items[at]
            if bytes(memoryview(raw)[:_LIKE_ENDS]).startswith(_LIKE_USER):
                self._plain = at
                return at
            if len(raw) <= SHAPE_BYTES and (text := bytes(raw)).startswith(_LIKE_SYSTEM):
                role = _role_of(self._read, self._dialect, text)
            else:
                self._opening = self._read(self._dialect, raw)
                role = self._opening.role
            if role not in _SYSTEM:
                return at
            self._opening = None
            self.prompt = self.prompt or bytes(raw)[:SHAPE_BYTES]
        return min(LEADING_LIMIT, self.count)

    def _back(self, end: int, results: list[ToolResult]) -> Turn | None:
        """The last turn of the assistant before `end`; the tool results behind it go into `results`, in order."""
        turn: Turn | None = None
        items, read, dialect, head = self._items, self._read, self._dialect, self._head
        if self._plain == end - 1:
            return None
        for at in range(end - 1, max(head, end - READ_LIMIT) - 1, -1):
            opening = self._opening if at == head else None
            item = opening or read(dialect, items[at])
            if item.role == _ASSISTANT:
                turn = turn or Turn(at + 1)
                turn.prepend(item)
            elif turn is not None:
                break
            elif item.tool_results:
                results[:0] = item.tool_results
        return turn


@lru_cache(256)
def _role_of(read: ReadItem, dialect: str, raw: bytes) -> str:
    """Of a system message: the same one comes with almost every call."""
    return read(dialect, raw).role


@lru_cache(512)
def _sum_of(prompt: bytes) -> int:
    """Of a prompt: the same one comes with almost every call."""
    return crc32(prompt)


def unmarked(text: bytes) -> bytes:
    """JSON text without its `cache_control` members."""
    pieces = text.rsplit(_MARK)  # on large texts several times as fast as split, find or re
    if len(pieces) == 1:
        return text
    first, *pieces = pieces
    kept = [first]
    for piece in pieces:
        value = _MARK_VALUE.match(piece)
        if value is None:
            kept.append(_MARK + piece)
            continue
        before, behind = kept[-1].rstrip(), piece[value.end() :]
        if before.endswith(b","):
            kept[-1] = before[:-1]
        else:
            behind = behind.removeprefix(b",").lstrip()
        kept.append(behind)
    return b"".join(kept)


def same_prompt(one: int, other: int) -> bool:
    return one >> 32 == other >> 32


def same_first(one: int, other: int) -> bool:
    return (one ^ other) & 0xFFFFFFFF == 0
