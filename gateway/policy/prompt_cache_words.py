"""What is said to people about a call that could have been read from its provider's cache. Pure."""

from __future__ import annotations

WAYS = {"changed": "changed", "reordered": "was put in another order", "inserted": "was put in", "shortened": "is gone"}
ALWAYS = {"changed": "changes", "reordered": "changes its order", "inserted": "is put in", "shortened": "is dropped"}
NAMES = {"tool": "tool definition", "system": "system block", "message": "message"}
FIELDS = {"model": "the model or its upstream", "tool_choice": "tool_choice", "thinking": "the reasoning asked for"}
UNMARKED = "no cache_control is set: the whole conversation is billed as fresh input on every call"
PROVIDER = "the prefix is stable, and the provider did not read it from its cache"


def hint(part: str, index: int, cause: str, *, streak: int = 0, idle_ms: int = 0, ttl_minutes: int = 0) -> str:
    """`index` counts from 0, as in the body; `streak`: calls in a row that parted from the one before at this place."""
    if cause == "unmarked":
        return UNMARKED
    if cause == "provider":
        return PROVIDER
    if cause == "ttl":
        return f"{idle_ms // 1000} s passed since the call before; what is cached is kept for {ttl_minutes * 60} s"
    often = " on every call" if streak > 1 else ""
    if part in FIELDS:
        return f"{FIELDS[part]} {'changes' if often else 'changed'}{often}"
    way = (ALWAYS if often else WAYS)[cause]
    return f"{NAMES[part]} {index} {way}{often}"
