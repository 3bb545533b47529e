"""Halves of surrogate pairs: a server that cuts its text between UTF-16 units has each half in an event of its own."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec.structs import replace

from gateway.dialects.shape import DECODE_FAULTS
from gateway.dialects.translate.neutral import Said

_UNREADABLE = (ValueError, RecursionError)


def decode_halves(data: bytes) -> Any:
    """JSON with halves in its strings; None for what is no JSON all the same."""
    if b"\\u" not in data:
        return None
    try:
        return json.loads(data)
    except _UNREADABLE:
        return None


def decode(data: bytes) -> Any:
    """JSON whose strings are whole; half of a pair is replaced. None for what is no JSON."""
    try:
        return msgspec.json.decode(data)
    except DECODE_FAULTS:
        value = decode_halves(data)
    try:
        return None if value is None else json.loads(_mended(json.dumps(value, ensure_ascii=False)))
    except _UNREADABLE:
        return None


def _mended(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Halves:
    """Puts the texts of a stream together again."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, str, int], str] = {}  # of each part, half a pair

    def mend(self, event: Said) -> Said:
        place = (event.choice, event.kind, event.key)
        text = self._waiting.pop(place, "") + event.text
        if "\ud800" <= text[-1:] <= "\udbff":
            self._waiting[place] = text[-1]
            text = text[:-1]
        return replace(event, text=_mended(text))
