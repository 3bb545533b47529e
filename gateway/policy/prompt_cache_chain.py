"""What is remembered of the prefix of a conversation, and where two prefixes part. Pure; holds no content.

The chain of a conversation is a fingerprint of 16 bits for each tool definition, system block and message, in the order
in which providers cache them. `cache_control` marks are left out (clients move them along), and a lone block of text
is as good as its string (clients need a block to mark it). Chance makes a changed item look the same once in 65,536.

One value of ports.Links (at most 200 bytes) holds the head and the first messages; the blocks in front of them, and
later messages page by page, have values of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from struct import Struct as Layout
from struct import error as LayoutError
from struct import unpack_from
from typing import Any
from zlib import crc32

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import astuple

from gateway.policy.identity_history import unmarked

ROOT_BYTES = 512  # at either end of the message that opens a conversation
INLINE = 76  # messages whose fingerprints stand beside the head
PAGE = 100  # in each further value
PAGES = 4
MESSAGES = INLINE + PAGE * PAGES
TOOLS, BLOCKS = 76, 24  # whose fingerprints are kept
LOOK_AHEAD = 32  # items that may have been put in or left out where a list goes on as before
VERSION = 1
MOST = 0xFFFF  # messages, and places among them, that are told apart
HEAD = Layout("<BQHHHIIIIHBBHBBB")
_LONE = (  # how a message with a lone block of text begins, and with a string
    (b'"content":[{"type":"text","text":"', b'"content":"'),
    (b'"content": [{"type": "text", "text": "', b'"content": "'),
)
_MARK = b'"cache_control"'
_USERS = (b'{"role":"user"', b'{"role": "user"')  # mostly it begins so
_list = msgspec.json.Decoder(list[Raw])

PARTS = ("", "tool", "system", "message", "model", "tool_choice", "thinking")


class State(Struct, gc=False):
    """The last call of a conversation; in the order of `HEAD`."""

    at: int = 0  # ms since the epoch: its answer began, so what it wrote could be read
    ttl: int = 0  # seconds that its provider keeps what is cached
    choice: int = 0  # fingerprints of the fields by which tools are chosen
    thinking: int = 0  # and reasoning asked for
    model: int = 0  # and of upstream and model
    extent: int = 0  # tokens that the next call could read
    input: int = 0  # tokens
    front: int = 0  # bytes of tools and system prompt, mixed: other ones have another number
    messages: int = 0
    tools: int = 0  # of which fingerprints are kept
    system: int = 0
    index: int = 0  # where the calls before this one parted from those before them
    part: int = 0  # of PARTS: what did
    flags: int = 0
    streak: int = 0  # so many calls in a row parted there
    chain: bytes = b""  # of the first messages

    def pack(self) -> bytes:
        *head, text = astuple(self)
        packed: bytes = HEAD.pack(VERSION, *head) + text
        return packed


_new_state: Callable[..., State] = State


def state_of(value: bytes | None) -> State | None:
    """None where nothing, or nothing of this version, is remembered."""
    if value is None:
        return None
    try:
        fields = HEAD.unpack_from(value)
    except LayoutError:
        return None
    return _new_state(*fields[1:], value[HEAD.size :]) if fields[0] == VERSION else None


def plain(raw: Any) -> bytes:
    """The text of an item without marks."""
    text = bytes(raw)
    return text if text.rfind(_MARK) < 0 else unmarked(text)


def fingerprint(raw: Any) -> int:
    """16 bits."""
    return crc32(plain(raw)) & 0xFFFF


def twin(raw: Any) -> int:
    """Fingerprint of the same message with its text as a string in place of a lone block, or the reverse; -1: none."""
    text = plain(raw)
    for block, string in _LONE:
        at = text.find(block, 0, 64)
        if at >= 0 and text[-4:] == b'"}]}' and text.count(b'"type"') == 1:
            return crc32(text[:at] + string + text[at + len(block) : -3] + b"}") & 0xFFFF
        at = text.find(string, 0, 64)
        if at >= 0 and text[-2:] == b'"}':
            return crc32(text[:at] + block + text[at + len(string) : -1] + b"}]}") & 0xFFFF
    return -1


def root_of(messages: Sequence[Any]) -> int:
    """32 bits over the ends of the first message that is not the system's: what tells the conversations of an agent
    apart. Should it change though the message does not, the conversation is found again by a later one."""
    for raw in messages:
        if len(raw) <= 2 * ROOT_BYTES:
            text = bytes(raw)
            if text.startswith(_USERS) or not is_system(text):
                return crc32(text if text.rfind(_MARK) < 0 else unmarked(text))
        else:
            view = memoryview(raw)
            text = bytes(view[:ROOT_BYTES])
            if text.startswith(_USERS) or not is_system(text):
                return crc32(plain(view[-ROOT_BYTES:]), crc32(text))
    return 0


def is_system(text: bytes) -> bool:
    """Is this message part of the prompt? By its beginning, where encoders put the role."""
    head = text[:64]
    return b'"system"' in head or b'"developer"' in head


def chain(items: Iterable[Any]) -> bytes:
    found = b""
    for raw in items:  # a call has one or two that are new
        text = bytes(raw)
        if text.rfind(_MARK) >= 0:
            text = unmarked(text)
        found += (crc32(text) & 0xFFFF).to_bytes(2, "little")
    return found


def chain_like(old: Sequence[int], items: Sequence[Any]) -> list[int]:
    """The fingerprints of messages; those of twins where `old` has them there."""
    found = [fingerprint(raw) for raw in items]
    for at in range(min(len(old), len(found))):
        if found[at] != old[at] and twin(items[at]) == old[at]:
            found[at] = old[at]
    return found


def numbers(text: bytes) -> Sequence[int]:
    return unpack_from(f"<{len(text) // 2}H", text)


def elements(text: bytes) -> list[Any]:
    """The items of a JSON array; anything else is one item; nothing is none."""
    if not text or text == b"null":
        return []
    if text[:1] == b"[":
        try:
            return list(_list.decode(text))
        except msgspec.DecodeError:
            pass
    return [text]


def place(old: Sequence[int], new: Sequence[int], *, growing: bool) -> tuple[int, str] | None:
    """Where `new` parts from `old` (index in `new`), and how: changed, reordered, inserted or shortened.

    `growing`: what stands behind the end of `old` is no change (messages; not so tools and system blocks).
    """
    most = min(len(old), len(new))
    at = next((i for i in range(most) if old[i] != new[i]), most)
    if at == len(old) and (growing or at == len(new)):
        return None
    if at == len(new):
        return at, "shortened"
    rest = list(old[at:])
    if at == len(old):
        return at, "inserted"
    here = list(new[at : at + len(rest)])
    if len(rest) > 1 and Counter(here) == Counter(rest):
        return at, "reordered"
    following = min(3, len(rest))
    for skip in range(1, LOOK_AHEAD):
        if list(new[at + skip : at + skip + following]) == rest[:following]:
            return at, "inserted"
        if skip < len(rest) and here[: len(rest) - skip][:3] == rest[skip : skip + 3]:
            return at, "shortened"
    return at, "changed"
