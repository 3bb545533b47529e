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
from typing import TYPE_CHECKING, Any, Protocol
from zlib import crc32

from gateway.call import Answer, Asked, ToolResult

if TYPE_CHECKING:
    from hashlib import _Hash as HASH

READ_LIMIT = 256  # items read from the end while no turn of the assistant shows up
LEADING_LIMIT = 4  # system messages in front
STEP_BACK = 24  # items by which a second look at an earlier turn may go back without hashing all again
SHAPE_BYTES = 4096  # of the prompt, and of the first message
_ASSISTANT = "assistant"
_SYSTEM = frozenset(("system", "developer"))
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
        return next((item.text_digest for item in self._items if item.text_digest), b"")

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

    def __init__(self, dialect: str, asked: Asked, read: ReadItem) -> None:
        self._dialect = dialect
        self._read = read
        self._items = asked.messages
        self.count = len(self._items)
        self._opening: Item | None = None
        self.prompt = bytes(asked.system)
        self._head = self._skip_system()
        self.results: list[ToolResult] = []
        self.last = self._back(self.count, self.results)
        self._shape = -1
        self._hash: HASH | None = None
        self._hashed = 0
        self._before: tuple[HASH, int] | None = None  # from where an earlier end can be reached

    @property
    def shape(self) -> int:
        """32 bits over the head of the prompt, and 32 over that of the first message."""
        if self._shape < 0:
            first = bytes(self._items[self._head])[:SHAPE_BYTES] if self._head < self.count else b""
            self._shape = crc32(self.prompt[:SHAPE_BYTES]) << 32 | crc32(unmarked(first))
        return self._shape

    def earlier(self, turn: Turn) -> Turn | None:
        """The assistant's turn before this one."""
        return self._back(turn.start, [])

    def digest(self, end: int) -> bytes:
        """Over the items in front of `end`, system messages left out."""
        if self._hash is None or end < self._hashed:
            if self._before is not None and self._before[1] <= end:
                self._hash, self._hashed = self._before[0].copy(), self._before[1]
            else:
                self._hash, self._hashed = sha256(), self._head
        if end - self._hashed > 2 * STEP_BACK:
            self._hash_to(self._hash, end - STEP_BACK)
            self._before = (self._hash.copy(), self._hashed)
        self._hash_to(self._hash, end)
        return self._hash.copy().digest()

    def _hash_to(self, hashing: HASH, end: int) -> None:
        if end > self._hashed:
            hashing.update(unmarked(b",".join(self._items[self._hashed : end]) + b","))
            self._hashed = end

    def _skip_system(self) -> int:
        """How many items in front make up the system prompt, which is taken from them where the body has no other."""
        for at in range(min(LEADING_LIMIT, self.count)):
            raw = self._items[at]
            item = self._read(self._dialect, raw)
            if item.role not in _SYSTEM:
                self._opening = item
                return at
            self.prompt = self.prompt or bytes(raw)
        return min(LEADING_LIMIT, self.count)

    def _back(self, end: int, results: list[ToolResult]) -> Turn | None:
        """The last turn of the assistant before `end`; the tool results behind it go into `results`, in order."""
        turn: Turn | None = None
        for at in range(end - 1, max(self._head, end - READ_LIMIT) - 1, -1):
            opening = self._opening if at == self._head else None
            item = opening or self._read(self._dialect, self._items[at])
            if item.role == _ASSISTANT:
                turn = turn or Turn(at + 1)
                turn.prepend(item)
            elif turn is not None:
                break
            elif item.tool_results:
                results[:0] = item.tool_results
        return turn


def unmarked(text: bytes) -> bytes:
    """JSON text without its `cache_control` members."""
    first, *pieces = text.rsplit(_MARK)  # on large texts several times as fast as split, find or re
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
