"""Members of JSON objects that are repeated: RFC 8259 4 leaves open what they mean, and parsers disagree."""

from __future__ import annotations

from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode


def may_repeat(text: bytes, value: Any) -> bool:
    """Could an object in this text repeat a member? `value`: what msgspec reads in it, which is the last of each.

    A member that was dropped took its quotes along. An escaped quote is written out anew, and could make up for them.
    """
    return _encode(value).count(b'"') != text.count(b'"') or b"\\u0022" in text
