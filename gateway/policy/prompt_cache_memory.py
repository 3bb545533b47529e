"""What is kept of the prefixes of conversations in `ports.Links`, values of at most 200 bytes. Pure.

Under the scope of an agent in a run and the root of a conversation: `H` its head with the first messages, `B` tools and
system blocks, `0` to `3` pages of later messages. Under the scope alone: which messages were the last of which
conversation, so that one is found again whose first message changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zlib import crc32

from gateway.call import Asked
from gateway.policy.prompt_cache_chain import (
    BLOCKS,
    INLINE,
    MESSAGES,
    PAGE,
    PAGES,
    TOOLS,
    State,
    chain,
    elements,
    plain,
    state_of,
)
from gateway.ports import Links

TAILS = 25  # last messages remembered of the conversations of an agent
BLOCKS_KEPT = 256

Key = tuple[bytes, bytes]  # scope (11 bytes), and root of the conversation (4): with a letter a key of 16


class Prefixes:
    """One per worker and configuration."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._blocks: dict[tuple[int, int], bytes] = {}  # fingerprints of the tools and system prompts seen lately

    def state(self, key: Key) -> State | None:
        return state_of(self._links.get(key[0] + b"H" + key[1]))

    def blocks(self, key: Key) -> bytes | None:
        """Fingerprints of tools, then of system blocks, as last kept."""
        return self._links.get(key[0] + b"B" + key[1])

    def elsewhere(self, messages: Sequence[Any], key: Key) -> tuple[State | None, Key]:
        """The conversation that one of these messages was the last of, under another first message."""
        scope = key[0]
        if len(messages) < 2 or (tails := self._links.get(scope + b"Tails")) is None:
            return None, key
        known = dict(_pairs(tails))
        for raw in reversed(messages):
            root = known.get(_tail(raw))
            if root is not None:
                return self.state((scope, root)), (scope, root)
        return None, key

    def remember(self, here: State, asked: Asked, key: Key) -> None:
        """The whole prefix, anew."""
        scope, root = key
        blocks = self.note_blocks(here, asked)
        if blocks:
            self._links.put(scope + b"B" + root, blocks)
        text = chain(asked.messages[:MESSAGES])
        here.chain, rest = text[: 2 * INLINE], text[2 * INLINE :]
        for page in range(PAGES):
            if part := rest[2 * PAGE * page : 2 * PAGE * (page + 1)]:
                self._links.put(scope + b"%d" % page + root, part)
        self._leave(asked.messages, key)

    def grow(self, before: State, here: State, messages: Sequence[Any], key: Key) -> None:
        """The prefix was read to its end: only what is new is read here."""
        here.tools, here.system = before.tools, before.system
        count, total = before.messages, len(messages)
        kept = before.chain
        if total == count:  # a retry, or another last message
            count -= 1
            kept = kept[: 2 * count]
        here.chain = kept + chain(messages[count:INLINE]) if count < INLINE else kept
        if total > INLINE:
            self._grow_pages(count, messages, key)
        if total.bit_length() != before.messages.bit_length():
            self._leave(messages, key)

    def _grow_pages(self, count: int, messages: Sequence[Any], key: Key) -> None:
        scope, root = key
        for page in range(PAGES):
            start = INLINE + PAGE * page
            if count >= start + PAGE or len(messages) <= start:
                continue
            kept = max(0, count - start)
            name = scope + b"%d" % page + root
            before = (self._links.get(name) or b"")[: 2 * kept].ljust(2 * kept, b"\0")
            self._links.put(name, before + chain(messages[start + kept : start + PAGE]))

    def pages(self, before: State, key: Key) -> bytes:
        found = b""
        for page in range(PAGES):
            kept = min(before.messages - INLINE - PAGE * page, PAGE)
            value = self._links.get(key[0] + b"%d" % page + key[1]) if kept > 0 else None
            if value is None or len(value) < 2 * kept:
                break
            found += value[: 2 * kept]
        return found

    def _leave(self, messages: Sequence[Any], key: Key) -> None:
        """A way back to this conversation, should its first message change."""
        tail = _tail(messages[-1])

        def change(value: bytes | None) -> bytes:
            kept = [one + root for one, root in _pairs(value or b"") if one != tail]
            return b"".join([*kept[1 - TAILS :], tail + key[1]])

        self._links.update(key[0] + b"Tails", change)

    def note_blocks(self, here: State, asked: Asked) -> bytes:
        """Fingerprints of tools and system blocks; their numbers go into `here`."""
        identity = (crc32(asked.system, crc32(asked.tools)), len(asked.tools) << 32 | len(asked.system))
        text = self._blocks.get(identity)
        if text is None:
            tools, system = _capped(elements(asked.tools), TOOLS), _capped(elements(asked.system), BLOCKS)
            if len(self._blocks) >= BLOCKS_KEPT:
                self._blocks.clear()
            text = self._blocks[identity] = bytes((len(tools) // 2,)) + tools + system
        here.tools, here.system = text[0], (len(text) - 1) // 2 - text[0]
        return text[1:]


def _capped(items: list[Any], limit: int) -> bytes:
    """At most so many fingerprints: the last one stands for all the rest."""
    if len(items) > limit:
        items = [*items[: limit - 1], b",".join(map(plain, items[limit - 1 :]))]
    return chain(items)


def _tail(raw: Any) -> bytes:
    return crc32(plain(raw)).to_bytes(4, "little")


def _pairs(value: bytes) -> list[tuple[bytes, bytes]]:
    """(fingerprint of a last message, root of its conversation), the oldest first."""
    return [(value[at : at + 4], value[at + 4 : at + 8]) for at in range(0, len(value) - 7, 8)]
