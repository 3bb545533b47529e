"""Typed partial decoding of JSON that may be odd: a field of an unexpected type is left out, the rest is read."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw, Struct

DECODE_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
NO_RAW = Raw(b"")
NULL = Raw(b"null")  # a Raw equals nothing but a Raw
TRUE = Raw(b"true")

E = TypeVar("E", bound=Struct)


def decoded(raw: Raw | bytes) -> Any:
    """A JSON value; None for what is none."""
    try:
        return msgspec.json.decode(raw)
    except DECODE_FAULTS:
        return None


def is_set(raw: Raw) -> bool:
    """Is there a value other than null?"""
    return len(raw) > 0 and raw != NULL


class Shape(Generic[E]):
    """The decoders of one event type."""

    def __init__(self, event: type[E]) -> None:
        self.event = event
        self.many: msgspec.json.Decoder[list[E]] = msgspec.json.Decoder(list[event])  # type: ignore[valid-type]
        self.one: msgspec.json.Decoder[E] = msgspec.json.Decoder(event)
        self._object = msgspec.json.Decoder(dict[str, Raw])
        self._fields: dict[str, msgspec.json.Decoder[Any]] = {
            field.encode_name: msgspec.json.Decoder(field.type) for field in msgspec.structs.fields(event)
        }

    def salvage(self, data: bytes | Raw) -> E | None:
        """What can be read of one event; fields of an unexpected type are left out. None where it is no object."""
        try:
            return self.one.decode(data)
        except DECODE_FAULTS:
            pass
        try:
            raw = self._object.decode(data)
        except DECODE_FAULTS:
            return None
        found: dict[str, Any] = {}
        for name, decoder in self._fields.items():
            if name in raw:
                try:
                    found[name] = decoder.decode(raw[name])
                except DECODE_FAULTS:
                    continue
        return self.event(**found)
