"""How many tokens a request can be at most, from its bytes: cheap enough to be asked on every call under a budget.

The bound
1. No current vocabulary makes more tokens of a text than it has UTF-8 bytes: they all fall back to single bytes.
2. Of text that is mostly lower-case letters and blanks it is fewer: two thirds of a token for each of those bytes holds
   even for the rarest letters drawn at random (measured: 0.65 tokens a byte, of all letters 0.54, of prose 0.2 to 0.3),
   while every other byte (digits, capitals, marks, line breaks, all bytes beyond ASCII) may be a token by itself. Where
   the others are more than two fifths, rule 1 alone counts. In short: others + 2/3 of the plain >= tokens.
3. What a dialect puts around the text is bounded per message, block and tool by constants of the model's family, above
   those of `policy.token_families`; media by twice the published rules, for what is not in the request itself by what
   such a thing may be at most; ciphertext by four characters a token.
4. Where a member is repeated within a piece, parsers disagree which counts: then every byte of it is a token.

tests/golden/estimates/vocabularies.json holds rule 2 to five vocabularies, over texts made to break it; the recordings
hold the whole to what providers counted.

Cost: pieces (messages, system prompt, tools) are remembered by a hash of their content, because the turns of a run
repeat all but the last of them: about 0.4 us a piece and 0.4 us per KB; a new piece costs about 10 us per KB.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from gateway.members import may_repeat
from gateway.policy.inline_tools import declares_tools
from gateway.policy.media_bound import UNSEEN, bare_picture, medium_bound
from gateway.policy.media_size import decoded
from gateway.policy.media_tokens import HOLDERS, PAYLOADS, SOURCED, TYPES, is_text, kind_of, media_kind, payload
from gateway.policy.token_families import OTHER, family

PLAIN = b"abcdefghijklmnopqrstuvwxyz "
HUNDREDTHS = 67  # of a token, for each of them
AUDIO, HOUR = 1 << 40, 1 << 60  # flags above the tokens of a piece: it holds a recording; asks to be cached for an hour
STORED, INLINE = 1 << 80, 1 << 100  # it stands for an item that the provider keeps; it declares tools of its own
LINKED = 1 << 120  # it holds something of unknown size, which may fill the context
TOKENS = AUDIO - 1

BLOCK = 4  # of each JSON object: what marks a content block
TYPED = 40  # longer values of `type` and the like are text
CIPHER_CHARS = 4  # of encrypted reasoning, per token
PLACE = 60  # of each medium: what marks it
CITED = 600  # what asking for citations of a block adds
HIDDEN = 100  # of every request: what providers say to a model before it, recorded at up to 80

LABELS = frozenset({"type", "role", "status", "mimeType", "mime_type", "media_type", "detail", "format"})
CIPHERS = frozenset({"encrypted_content", "signature", "thoughtSignature", "thought_signature", "data"})
SIGNED = frozenset({"thoughtSignature", "thought_signature"})
CIPHERED = frozenset({"reasoning", "thinking", "redacted_thinking", "compaction", "reasoning.encrypted"})
PICTURES = "images"  # in base64, each a string
SPECIAL = LABELS | CIPHERS | {"cache_control", "cachePoint", "citations", PICTURES}
HELD = frozenset((*HOLDERS, *SOURCED))
STRUCTURE = frozenset(
    {
        "arguments", "call_id", "content", "contents", "description", "function", "functionCall", "functionResponse",
        "function_declarations", "functionDeclarations", "id", "input", "input_schema", "items", "name", "output",
        "parameters", "parts", "properties", "response", "summary", "text", "thinking", "tool_call_id", "tool_calls",
        "tool_use_id",
    }
)  # fmt: skip

REFERENCE, NAMED = 4_096, b'"id"'  # bytes of an item that may be one, and what it has among them
UNREADABLE = object()

GENERATION = 32_768  # pieces remembered, twice: about 6 MB in all


class Around(msgspec.Struct, frozen=True, gc=False):
    """What a model's family puts around the text; tokens."""

    request: int
    message: int
    tools: int
    percent: int  # of the bound of a text: how much denser this vocabulary may be than those it was measured with


@lru_cache(maxsize=1024)
def around(model: str) -> Around:
    """Above the constants fitted to recordings; for a model of no known family above those of all."""
    kind = family(model)
    if kind is OTHER:
        return Around(HIDDEN + 200, 24, 700, 110)
    dense = 115 if kind.text > 1 else 100
    return Around(
        int(kind.request * 1.2) + HIDDEN + kind.hidden, int(kind.message * 1.3) + 2, int(kind.tools * 1.5) + 200, dense
    )


def text_bound(data: bytes) -> int:
    """Tokens that a text may be at most."""
    size = len(data)
    others = len(data.translate(None, PLAIN))
    if others * 5 > size * 2:
        return size
    return others + ((size - others) * HUNDREDTHS + 99) // 100


class Pieces:
    """The bounds of pieces of requests, remembered in two generations of bounded size. One per process."""

    __slots__ = ("old", "young")

    def __init__(self) -> None:
        self.young: dict[int, int] = {}
        self.old: dict[int, int] = {}

    def total(self, pieces: Iterable[Any], model: str, *, closely: bool = False) -> int:
        """Tokens of all of them, and the flags. `pieces`: JSON values as written, bytes or msgspec.Raw; `closely`: the
        request asks for a high resolution of its media."""
        salt = hash(model) + closely
        young = self.young.get
        total = 0
        for piece in pieces:
            text = bytes(piece)
            key = hash(text) + salt
            found = young(key)
            total += self._learn(key, text, model, closely) if found is None else found
        return total

    def _learn(self, key: int, text: bytes, model: str, closely: bool) -> int:
        found = self.old.get(key)
        if found is None:
            found = piece_bound(text, model, closely=closely)
        if len(self.young) >= GENERATION:
            self.old, self.young = self.young, {}
        self.young[key] = found
        return found


def piece_bound(text: bytes, model: str, *, closely: bool = False) -> int:
    """Tokens of a message, system prompt or tool list as JSON; of anything else as text. With flags."""
    percent = around(model).percent
    value = decoded_piece(text)
    if value is UNREADABLE:
        return min(len(text), text_bound(text) * percent // 100)
    if (first := first_meaning(text, value)) is not value:
        return either_bound(text, (first, value), model, closely)
    walk = _Walk(model, closely)
    walk.value(value)
    flags = (STORED if is_reference(value) else 0) + (INLINE if declares_tools(value) else 0)
    return walk.total(percent) + flags


def first_meaning(text: bytes, value: Any) -> Any:
    """What a parser reads for which the first of repeated members counts; `value` itself, where none is repeated."""
    if not may_repeat(text, value):
        return value
    first = json.loads(text, object_pairs_hook=_first_wins)
    return value if first == value else first


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


def either_bound(text: bytes, values: tuple[Any, Any], model: str, closely: bool) -> int:
    """Members are repeated, and parsers disagree which of them counts: all of the text, and what else either means."""
    tokens, stored, inline = len(text), False, False
    for value in values:
        walk = _Walk(model, closely)
        walk.value(value)
        tokens += walk.tokens + walk.flags
        stored, inline = stored or is_reference(value), inline or declares_tools(value)
    return tokens + (STORED if stored else 0) + (INLINE if inline else 0)


def decoded_piece(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return UNREADABLE


def references(pieces: Iterable[Any]) -> list[str]:
    """The ids of the items of which these ones hold nothing else."""
    texts = [bytes(piece) for piece in pieces if len(piece) <= REFERENCE]
    small = [decoded_piece(text) for text in texts if NAMED in text]
    return [str(value["id"]) for value in small if is_reference(value)]


def is_reference(value: Any) -> bool:
    """An item of the Responses API that holds nothing but the id of one that was answered before."""
    if not isinstance(value, dict) or "id" not in value:
        return False
    return value.get("type") == "item_reference" or (value.get("type") is None and value.keys() <= {"id", "type"})


class _Walk:
    """Through the parts of one piece."""

    __slots__ = ("closely", "flags", "model", "texts", "tokens")

    def __init__(self, model: str, closely: bool) -> None:
        self.model, self.closely = model, closely
        self.texts: list[str] = []
        self.tokens = 0
        self.flags = 0

    def total(self, percent: int) -> int:
        data = "\n".join(self.texts).encode("utf-8", "replace")
        return min(len(data), text_bound(data) * percent // 100) + self.tokens + self.flags

    def value(self, value: object) -> None:
        kind = type(value)
        if kind is str:
            self.texts.append(value)  # type: ignore[arg-type]
        elif isinstance(value, dict):
            self.block(value)
        elif isinstance(value, list):
            for item in value:
                self.value(item)
        else:
            self.tokens += 1 if value is None or kind is bool else len(str(value))

    def block(self, value: Mapping[str, Any]) -> None:
        self.tokens += BLOCK
        kind = value.get("type")
        if type(kind) is not str:
            kind = ""
        if (kind in TYPES or not HELD.isdisjoint(value)) and (medium := media_kind(value)):
            self.medium(value, medium)
            return
        known, add = STRUCTURE, self.texts.append
        for key, inner in value.items():
            if key in SPECIAL and self.special(key, inner, kind):
                continue
            if key not in known:
                add(key)
            if type(inner) is str:
                add(inner)
            else:
                self.value(inner)

    def special(self, key: str, inner: Any, kind: str) -> bool:
        """What is no text: labels, ciphertext and options; False where it is none of them after all."""
        text = type(inner) is str
        if key in LABELS:
            self.tokens += 1
            return text and len(inner) <= TYPED
        if text and (kind in CIPHERED or key in SIGNED):
            self.tokens += len(inner) // CIPHER_CHARS + 1
            return True
        if key in ("cache_control", "cachePoint") and type(inner) is dict:
            self.flags |= HOUR if inner.get("ttl") == "1h" else 0
            return len(inner) <= 3
        if key == PICTURES and type(inner) is list:
            for one in inner:
                tokens = bare_picture(one) if type(one) is str else 0
                self.tokens += tokens
                if not tokens:
                    self.value(one)
            return True
        if key == "citations" and type(inner) is dict:
            self.tokens += CITED
        return False

    def medium(self, block: Mapping[str, Any], kind: str) -> None:
        """A picture, recording, video or document: by the rules for it, and what is said of it by its text."""
        data, mime = payload(block)
        cited = "citations" in block or "citations" in (block.get("document") or ())
        self.tokens += PLACE + (CITED if cited else 0)
        self.said(block)
        if mime.startswith("text/") or is_text(block):
            packed = b"" if is_text(block) else decoded(data, len(data))
            self.texts.append(packed.decode("utf-8", "replace") if packed else data)
            self.flags |= 0 if data or is_text(block) else LINKED
            return
        kind = kind_of(kind, mime)
        if kind == "audio":
            self.flags |= AUDIO
        tokens = medium_bound(block, kind, (data, mime), self.model, closely=self.closely)
        if tokens == UNSEEN:
            self.flags |= LINKED
        else:
            self.tokens += tokens

    def said(self, value: object) -> None:
        """Titles, names and contexts that come with a medium."""
        for key, inner in value.items() if isinstance(value, dict) else ():
            if isinstance(inner, dict):
                self.said(inner)
            elif type(inner) is str and key not in PAYLOADS and key not in LABELS and not inner.startswith("data:"):
                self.texts.append(inner)
            elif isinstance(inner, list):
                self.value(inner)
