"""What the request readers share: model, flags, limits and parameters from raw top-level fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from gateway.call import Asked
from gateway.dialects.body import FORM_BYTES, Fields, read_object
from gateway.dialects.shape import NULL, TRUE
from gateway.errors import BadBody

_text = msgspec.json.Decoder(str)
_integer = msgspec.json.Decoder(int)
_number = msgspec.json.Decoder(float)
_any = msgspec.json.Decoder()
_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

T = TypeVar("T")

MAX_TEXT = 256  # characters of a string parameter that is kept


def text(raw: Raw | None) -> str:
    """A JSON string, or "" for anything else."""
    if raw is None:
        return ""
    try:
        return _text.decode(raw)
    except _FAULTS:
        return ""


def integer(raw: Raw | None) -> int | None:
    """A JSON integer >= 0 of at most 18 digits, or None for anything else."""
    if raw is None or len(raw) > 18:
        return None
    try:
        value = _integer.decode(raw)
    except _FAULTS:
        return None
    return value if value >= 0 else None


def flag(raw: Raw | None) -> bool:
    return raw is not None and raw == TRUE


def model_name(fields: Mapping[str, Raw]) -> str:
    """The model asked for. Raises BadBody where it is there but no string: policy must see what the upstream sees."""
    raw = fields.get("model")
    if raw is None:
        return ""
    try:
        return _text.decode(raw)
    except _FAULTS:
        if raw == NULL:
            return ""
        raise BadBody("The model must be a string.", code="invalid_model", param="model") from None


def _short(raw: Raw) -> str | None:
    return text(raw)[:MAX_TEXT] or None


def _strings(raw: Raw) -> list[str] | None:
    if len(raw) > 4096:
        return None
    try:
        value = _any.decode(raw)
    except _FAULTS:
        return None
    values = value if isinstance(value, list) else [value]
    return [item[:MAX_TEXT] for item in values if isinstance(item, str)][:16] or None


Reader = Callable[[Raw], "str | int | float | list[str] | None"]  # may raise what decoding raises

# field of the body -> (suffix of gen_ai.request.*, how to read it)
SAMPLING: dict[str, tuple[str, Reader]] = {
    "temperature": ("temperature", _number.decode),
    "top_p": ("top_p", _number.decode),
    "topP": ("top_p", _number.decode),
    "top_k": ("top_k", integer),
    "topK": ("top_k", integer),
    "frequency_penalty": ("frequency_penalty", _number.decode),
    "frequencyPenalty": ("frequency_penalty", _number.decode),
    "presence_penalty": ("presence_penalty", _number.decode),
    "presencePenalty": ("presence_penalty", _number.decode),
    "seed": ("seed", integer),
    "n": ("choice.count", integer),
    "candidateCount": ("choice.count", integer),
    "stop": ("stop_sequences", _strings),
    "stop_sequences": ("stop_sequences", _strings),
    "stopSequences": ("stop_sequences", _strings),
    "previous_response_id": ("previous_response.id", _short),
    "reasoning_effort": ("reasoning.level", _short),
    "encoding_format": ("encoding_formats", _strings),
    "service_tier": ("service_tier", _short),
}


@lru_cache(256)
def _sampled(keys: tuple[str, ...]) -> tuple[tuple[str, str, Reader], ...]:
    """Those of the keys that are sampling parameters, with their names and readers."""
    return tuple([(key, *SAMPLING[key]) for key in keys if key in SAMPLING])


def params(fields: Mapping[str, Raw], keys: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Sampling parameters, keyed by what follows `gen_ai.request.` in the semantic conventions. `keys`: of a body whose
    form is remembered (see `body.Form`)."""
    found: dict[str, Any] = {}
    for key, name, reader in _sampled(keys if keys is not None else tuple([key for key in fields if key in SAMPLING])):
        try:
            value = reader(fields[key])
        except _FAULTS:
            continue
        if value is not None:
            found[name] = value
    return found


def member(raw: Raw | None, key: str) -> str:
    """A string member of a small object, or ""."""
    if raw is None or len(raw) > 65_536:
        return ""
    try:
        value = _any.decode(raw)
    except _FAULTS:
        return ""
    found = value.get(key) if isinstance(value, dict) else None
    return found[:MAX_TEXT] if isinstance(found, str) else ""


def raw_bytes(raw: Raw | None) -> bytes:
    return bytes(raw) if raw is not None else b""


def elements(found: Fields, key: str) -> tuple[Raw, ...]:
    """The items of an array field; a lone string or object counts as one item."""
    items = found.items.get(key)
    if items is not None:
        return tuple(items)
    raw = found.fields.get(key)
    return () if raw is None or raw == NULL else (raw,)


def read_body(body: bytes, split: Iterable[str]) -> Fields | None:
    """Scan a request body; None for an empty one. Raises BadBody."""
    if not body or body.isspace():
        return None
    return read_object(body, split)


def read_folded(body: bytes, split: Iterable[str]) -> Fields | None:
    """`read_body` for servers written in Go, whose JSON knows a field in any letter case. Of two that differ in nothing
    else the body is refused."""
    found = read_body(body, split)
    if found is None or all(map(str.islower, found.fields)):
        return found
    return Fields(_folded(found.fields), _folded(found.spans), _folded(found.items), found.form)


def _folded(named: Mapping[str, T]) -> dict[str, T]:
    return {key.casefold(): one for key, one in named.items()}


def first_of(fields: Mapping[str, Raw], *names: str) -> Raw | None:
    for name in names:
        raw = fields.get(name)
        if raw is not None:
            return raw
    return None


def limit(fields: Mapping[str, Raw], *names: str) -> int | None:
    """The first of the fields that is there, as an `integer`."""
    for name in names:
        raw = fields.get(name)
        if raw is not None:
            return integer(raw)
    return None


def asked(
    found: Fields,
    more: Mapping[str, Any] | None = None,
    *,
    model: str = "",
    stream: bool = False,
    max_tokens: int | None = None,
    messages: Sequence[Raw] = (),
    system: bytes = b"",
    tools: bytes = b"",
) -> Asked:
    """`more` adds to the parameters read at the top level."""
    known = params(found.fields, found.form.keys if len(found.form.text) <= FORM_BYTES else None)
    if more:
        known.update(more)
    return Asked(model, stream, max_tokens, found.fields, found.spans, messages, system, tools, known)
