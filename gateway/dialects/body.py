"""Request bodies: the raw top-level fields of a JSON object and where they stand, without decoding what is inside.

Rules
1. What is checked is what is sent: a body in which two top-level keys could be taken for one another (repeated,
   repeated with escapes, or repeated in another letter case) is refused, because parsers disagree which one counts;
   so is a request's list of tools (TELLING) in which any object repeats a key.
2. Nothing that could blow up a later parser passes: depth above 128, numbers of more than 1,000 digits or with
   exponents of four digits, NaN, infinities, lone surrogates, invalid UTF-8, trailing garbage.
3. Time is linear in the body and memory is a small multiple of it.

Theory of operation: one msgspec pass validates the grammar and slices the top-level values. Because the decoded
mapping keeps the order of first occurrence, walking the text along it fits exactly if and only if no key is repeated;
the walk also yields the spans. Depth and numbers are checked per piece (each message, each tool list); pieces seen
before are known by their hash, since the turns of a conversation repeat almost all of their body. The table of these
has its full size from the start: memory that only seems to grow hides memory that does.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterable, Mapping, Set
from itertools import accumulate
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from gateway.call import Edit
from gateway.errors import BadBody
from gateway.members import may_repeat

MAX_DEPTH = 128
MAX_DIGITS = 1000
MAX_KEYS = 10_000
MAX_SYMBOLS = 500_000  # quotes, and commas, in a body large enough for their number to matter
LARGE = 512 * 1024
SPLIT = 4096  # arrays above this size are checked item by item
TELLING = frozenset(("tools", "functions", "mcp_servers", "web_search_options"))  # what of them counts must be sure
NOTHING: Set[str] = frozenset()
STRINGS = 64  # quotes in a piece that is taken apart at them
RECKONED = 16_384  # bodies up to this size are worth a copy
FORMS, FORM_BYTES = 256, 1024  # sets of keys that are remembered, and characters in each

Span = tuple[int, int]

_Object = Annotated[dict[str, Raw], Meta(max_length=MAX_KEYS)]
_object: msgspec.json.Decoder[dict[str, Raw]] = msgspec.json.Decoder(_Object)
_array: msgspec.json.Decoder[list[Raw]] = msgspec.json.Decoder(list[Raw])

_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_SCALAR = re.compile(rb"[^,}\]\s]+")
_BIG_NUMBER = re.compile(rb"[0-9.]{%d}|[0-9][eE][+-]?[0-9]{4}" % (MAX_DIGITS + 1))
_LONG = b"0" * (MAX_DIGITS // 2)  # half: the other half may follow a decimal point
_SHAPE = bytes.maketrans(b"0123456789eE+-[]{}", b"0000000000ee--{}{}")
_BRACKETS = bytes.maketrans(b"[]", b"{}")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_HASH = 2**64 - 1
_BRACES = frozenset(b"[{")
_QUOTE, _COMMA, _COLON, _OPEN, _CLOSE, _BLANK, _ARRAY = b'",:{} ['


class Form(Struct, gc=False):
    """What all objects with these keys, in this order, have in common: a client's calls mostly have the same."""

    keys: tuple[str, ...]
    text: str  # the keys, one behind the other
    mixed: bool  # two of them might be taken for one another
    compact: list[bytes]  # what stands between the values, and in place of each value one empty piece
    spaced: list[bytes]  # the same as most encoders of Python write it


class Fields(Struct, gc=False):
    """A scanned object. `items` holds the elements of those top-level arrays that were split for checking."""

    fields: dict[str, Raw]
    spans: dict[str, Span]
    items: dict[str, list[Raw]]
    form: Form


def scan(body: bytes) -> tuple[Mapping[str, Raw], Mapping[str, Span]]:
    """Top-level fields in order, and the exact byte span of each value. Raises BadBody."""
    found = read_object(body, telling=NOTHING)
    return found.fields, found.spans


def read_object(body: bytes, split: Iterable[str] = (), telling: Set[str] = TELLING) -> Fields:
    """Like `scan`, also splitting the arrays named in `split`; within `telling` no object may repeat a key. Raises
    BadBody with a stable code:

    invalid_json, invalid_utf8, not_an_object, json_too_deep, json_too_complex, invalid_number, duplicate_key.
    """
    fields = _decode(body)
    keys = tuple(fields)
    form = _forms.get(keys) or _form(keys)
    spans = _reckon(body, fields, form) if len(body) <= RECKONED else _shortest(body, fields, form)
    if spans is None:
        spans = _walk(body, fields)
    if spans is None:
        spans = _search(body, fields)
    if form.mixed:
        _refuse_lookalikes(fields)
    items: dict[str, list[Raw]] = {}
    for key, (start, end) in spans.items():
        first = body[start]
        if first == _QUOTE:
            continue
        if first == _ARRAY and (end - start > SPLIT or key in split):
            items[key] = elements = _array.decode(fields[key])
            _check(elements, 2, key, telling)
        elif first in _BRACES:
            _check((fields[key],), 1, key, telling)
        elif end - start > 5:
            _check_number(fields[key], key)
    return Fields(fields, spans, items, form)


def nested(body: bytes, span: Span, param: str) -> tuple[Mapping[str, Raw], Mapping[str, Span]]:
    """Fields of an object inside the body, with spans in the body's own offsets. Duplicate keys raise BadBody."""
    start, end = span
    try:
        fields, spans = scan(body[start:end])
    except BadBody as fault:
        param = f"{param}.{fault.param}" if fault.param else param
        raise BadBody(fault.message, code=fault.code, param=param) from None
    return fields, {key: (start + a, start + b) for key, (a, b) in spans.items()}


def object_at(body: bytes, spans: Mapping[str, Span], name: str) -> tuple[Mapping[str, Raw], Mapping[str, Span]]:
    """`nested`, of the object that is the member called `name`; nothing where there is none."""
    span = spans.get(name)
    return nested(body, span, name) if span is not None and body[span[0]] == 0x7B else ({}, {})


def splice(body: bytes, edits: Iterable[Edit]) -> bytes:
    """Apply edits that do not overlap; offsets are those of the unedited body."""
    pieces: list[bytes] = []
    at = 0
    for edit in sorted(edits, key=lambda edit: edit.start):
        if not at <= edit.start <= edit.end <= len(body):
            raise ValueError("edits overlap or leave the body")
        pieces += (body[at : edit.start], edit.text)
        at = edit.end
    pieces.append(body[at:])
    return b"".join(pieces)


def _decode(body: bytes) -> dict[str, Raw]:
    if len(body) > LARGE and (body.count(b'"') > MAX_SYMBOLS or body.count(b",") > MAX_SYMBOLS):
        raise BadBody("The request body has too many JSON values.", code="json_too_complex")
    try:
        if not body.isascii():
            body.decode()
        return _object.decode(body)
    except UnicodeDecodeError:
        raise BadBody("The request body is not valid UTF-8.", code="invalid_utf8") from None
    except RecursionError:
        raise _too_deep() from None
    except msgspec.ValidationError as fault:
        if "length" in str(fault):
            raise BadBody("The request body has too many fields.", code="json_too_complex") from None
        raise BadBody("The request body must be a JSON object.", code="not_an_object") from None
    except msgspec.DecodeError as fault:
        raise BadBody(f"The request body is not valid JSON: {fault}", code="invalid_json") from None


def _skip(body: bytes, at: int) -> int:
    found = _SPACE.match(body, at)
    return found.end() if found else at


def _shortest(body: bytes, fields: Mapping[str, Raw], form: Form) -> dict[str, Span] | None:
    """Spans, where the text is as short as a text of these fields can be, else None: then there is no white space
    between them, no key is written with escapes, and none is repeated."""
    names = form.text
    if len(body) != len(names) + 4 * len(fields) + 1 + sum(map(len, fields.values())) or not names.isascii():
        return None
    spans: dict[str, Span] = {}
    at = 0  # of the brace or comma before a key
    for key, raw in fields.items():
        start = at + len(key) + 4
        at = start + len(raw)
        spans[key] = (start, at)
    return spans


def _reckon(body: bytes, fields: Mapping[str, Raw], form: Form) -> dict[str, Span] | None:
    """Spans, where the encoder put one space behind each colon and comma, or none, and nothing else; else None.

    The body is put together once more and compared, without a loop in Python: a tenth of `_walk`.
    """
    spaced = body[body.find(b'":', 1) + 2] == _BLANK
    pieces = (form.spaced if spaced else form.compact).copy()
    pieces[1::2] = fields.values()  # Raw is a buffer
    if b"".join(pieces) != body:
        return None
    ends = list(accumulate(map(len, pieces)))
    return dict(zip(form.keys, zip(ends[::2], ends[1::2], strict=False), strict=True))


_forms: dict[tuple[str, ...], Form] = {}


def _form(keys: tuple[str, ...]) -> Form:
    text = "".join(keys)
    made = Form(keys, text, not text.islower() and bool(text), _pieces(keys, b""), _pieces(keys, b" "))
    if len(text) <= FORM_BYTES:
        if len(_forms) >= FORMS:
            _forms.clear()
        _forms[keys] = made
    return made


def _pieces(keys: Iterable[str], blank: bytes) -> list[bytes]:
    found: list[bytes] = []
    for key in keys:
        found += (b'%b"%b":%b' % (b"," + blank if found else b"{", key.encode(), blank), b"")
    return [*found, b"}"]


def _walk(body: bytes, fields: Mapping[str, Raw]) -> dict[str, Span] | None:
    """Spans, or None when the text does not follow the decoded mapping key by key."""
    spans: dict[str, Span] = {}
    starts = body.startswith
    at = (0 if body[0] == _OPEN else _skip(body, 0)) + 1
    last = _COMMA
    for key, raw in fields.items():
        label = b'"%b":' % key.encode()
        if starts(label, at):
            at += len(label)
        else:
            at = _past_label(body, at, label)
        if body[at] <= _BLANK:
            at += 1  # the one space that most encoders write
            if body[at] <= _BLANK:
                at = _skip(body, at)
        end = at + len(raw)
        if not starts(raw, at):  # Raw is a buffer
            return None
        spans[key] = (at, end)
        last = body[end]
        if last <= _BLANK:
            end = _skip(body, end)
            last = body[end]
        at = end + 2 if body[end + 1 : end + 2] == b" " else end + 1
    return spans if last == _CLOSE or not fields else None


def _past_label(body: bytes, at: int, label: bytes) -> int:
    """Where the value behind this key begins, white space allowed; 0, where no value is, when it is another key."""
    at = _skip(body, at)
    if not body.startswith(label[:-1], at):
        return 0
    at = _skip(body, at + len(label) - 1)
    return at + 1 if body[at] == _COLON else 0


def _search(body: bytes, fields: Mapping[str, Raw]) -> dict[str, Span]:
    """The exact way, for bodies that are valid JSON: reads every top-level key as written. Raises BadBody."""
    spans: dict[str, Span] = {}
    at = _skip(body, _skip(body, 0) + 1)
    while body[at] != _CLOSE:
        if body[at] == _COMMA:
            at = _skip(body, at + 1)
        quoted = _STRING.match(body, at)
        assert quoted is not None
        key: str = msgspec.json.decode(quoted[0], type=str)
        if key in spans:
            raise BadBody(f"The field '{key}' appears more than once.", code="duplicate_key", param=key)
        at = _skip(body, _skip(body, quoted.end()) + 1)
        end = _value_end(body, at)
        spans[key] = (at, end)
        at = _skip(body, end)
    return {key: spans[key] for key in fields}


def _value_end(body: bytes, at: int) -> int:
    if body[at] not in b"[{":
        found = (_STRING if body[at] == _QUOTE else _SCALAR).match(body, at)
        assert found is not None
        return found.end()
    depth = 0
    for token in _TOKEN.finditer(body, at):
        text = token[0]
        if text in b"[{":
            depth += 1
        elif text in b"]}":
            depth -= 1
            if not depth:
                return token.end()
    raise AssertionError("unbalanced JSON passed the decoder")


def _refuse_lookalikes(fields: Iterable[str]) -> None:
    seen: set[str] = set()
    for key in fields:
        folded = key.casefold()
        if folded in seen:
            raise BadBody(f"The field '{key}' appears more than once.", code="duplicate_key", param=key)
        seen.add(folded)


def _refuse_repeated(text: bytes, param: str) -> None:
    """A list of tools says what may be used and charged: no member in it may mean two things. Raises BadBody."""
    try:
        doubtful = may_repeat(text, msgspec.json.decode(text))
    except msgspec.DecodeError:  # a number beyond all of its types
        doubtful = True
    if doubtful:
        json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, param))


def _once(pairs: list[tuple[str, object]], param: str) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadBody(f"A member of an object in '{param}' appears more than once.", code="duplicate_key", param=param)
    return found


_SLOTS = 32_768
_known = array("Q", bytes(8 * _SLOTS))  # hashes of pieces found harmless, each in the slot of its last bits


def _check(pieces: Iterable[Raw], depth: int, param: str, telling: Set[str]) -> None:
    """Refuse pieces that nest too deep below `depth` levels, or hold an absurd number. Raises BadBody."""
    tells = param in telling
    salt = depth + MAX_DEPTH if tells else depth
    for piece in pieces:
        if len(piece) >= 8:
            text = bytes(piece)
            key = (hash(text) + salt) & _HASH
            if _known[key % _SLOTS] != key and text[0] != _QUOTE:
                _check_new(text, depth, param)
                if tells:
                    _refuse_repeated(text, param)
                _known[key % _SLOTS] = key


def _check_new(text: bytes, depth: int, param: str) -> None:
    pieces = text.split(b'"', STRINGS)
    if len(pieces) <= STRINGS and text.find(b'\\"') < 0:
        text = b"".join(pieces[::2])  # few strings, no quote in them: what stands outside of them is quickly looked at
        if len(text) <= MAX_DEPTH - depth and text.find(b"e") < 0 and text.find(b"E") < 0:
            return
    shape = text.translate(_SHAPE)
    suspicious = shape.count(b"{") > MAX_DEPTH - depth or b"0e0000" in shape or b"0e-0000" in shape or _LONG in shape
    if suspicious:
        _check_exactly(text, depth, param)


def _check_exactly(text: bytes, depth: int, param: str) -> None:
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(text.split(b'"')[::2])
    if _BIG_NUMBER.search(outside):
        raise _bad_number(param)
    brackets = outside.translate(_BRACKETS, _NOT_BRACKETS)
    while brackets:  # each round removes the innermost level
        depth += 1
        if depth > MAX_DEPTH:
            raise _too_deep(param)
        brackets = brackets.replace(b"{}", b"")


def _check_number(raw: Raw, param: str) -> None:
    if _BIG_NUMBER.search(bytes(raw)):
        raise _bad_number(param)


def _bad_number(param: str) -> BadBody:
    return BadBody("A number in the request body is out of range.", code="invalid_number", param=param)


def _too_deep(param: str | None = None) -> BadBody:
    return BadBody(f"The request body nests deeper than {MAX_DEPTH} levels.", code="json_too_deep", param=param)
