"""The one text digest by which an assistant's answer is recognised when a later request quotes it."""

from __future__ import annotations

from hashlib import blake2b

_BLANK = blake2b(digest_size=16)  # copying it costs a third of making one
LIMIT = 65_536
"""Characters that count, after leading white space: meters keep no more of an answer than this."""
THOUGHT = "</think>"  # ends what open models think aloud, which many clients do not send back


def digest_text(text: str) -> bytes:
    """16 bytes that do not change when white space is added, removed at the ends or folded, or thoughts are left out;
    b"" for blank text."""
    text = text.lstrip()[:LIMIT]
    if THOUGHT in text:
        text = text.partition(THOUGHT)[2].lstrip() or text
    # Of all white space only the plain space is printable: most short texts are as they should be already.
    text = " ".join(text.split()) if "  " in text or not text.isprintable() else text.rstrip()
    if not text:
        return b""
    made = _BLANK.copy()
    made.update(text.encode("utf-8", "surrogatepass"))
    return made.digest()
