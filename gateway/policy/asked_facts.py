"""What a request says of the size and price of its answer, read from the raw fields that a dialect kept."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from gateway.call import Asked
from gateway.policy.media_bound import is_close

LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
GENERATION = ("generationConfig", "generation_config")
CONTEXT = ("service_tier", "serviceTier", "speed", "inference_geo")
CHOICES = ("n", "best_of", "num_generations", "numResults")
RESOLUTIONS = ("mediaResolution", "media_resolution")
CANDIDATES = ("candidateCount", "candidate_count")
ESCAPE = b"\\u"  # a name may be written with it
MOST_CHOICES = 1_000_000  # more than any upstream makes; bounds the figures

_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decoded(raw: Any) -> Any:
    """A JSON value as written; None for what is none."""
    try:
        return msgspec.json.decode(raw)
    except _FAULTS:
        return None


def whole(raw: Any) -> int | None:
    """A JSON number of tokens, or a string of digits; a fraction counts upwards, as no upstream gives a part of one.
    None for all else."""
    return _whole(bytes(raw)) if len(raw) <= 24 else None


@lru_cache(256)
def _whole(text: bytes) -> int | None:
    """Clients ask for the same numbers again and again."""
    value = decoded(text)
    if type(value) is str and value.strip().isdecimal():  # as lenient upstreams read it
        return int(value)
    if type(value) is float and 0 <= value < 1e15:
        return -int(-value // 1)
    return value if type(value) is int and value >= 0 else None


def output_limit(asked: Asked, names: tuple[str, ...] = LIMITS) -> int | None:
    """The largest limit that the request states for an answer: which of several an upstream heeds is not known. None
    where one of them is none that we can read: an upstream may take it for any number."""
    stated = asked.max_tokens
    fields = asked.fields
    for name in names:
        if name in fields and bytes(fields[name]) != b"null":
            value = whole(fields[name])
            if value is None:
                return None
            if stated is None or value > stated:
                stated = value
    return stated


def choices_of(asked: Asked, operation: str) -> int:
    """How many answers are asked for: each is billed, also those that best_of throws away."""
    fields = asked.fields
    count = 1
    for name in CHOICES:
        if name in fields:
            count = max(count, _count(decoded(fields[name])))
    for config in _configs(asked, b"andidate"):
        count = max(count, *(_count(config.get(key)) for key in CANDIDATES))
    if operation == "text_completion" and "prompt" in fields:
        count *= _prompts(fields["prompt"])
    return max(count, 1)


def _configs(asked: Asked, mark: bytes) -> list[Mapping[str, Any]]:
    """What Gemini is told of its answer, where a member with this in its name may be among it."""
    raws = [bytes(asked.fields[name]) for name in GENERATION if name in asked.fields]
    found = [decoded(raw) for raw in raws if mark in raw or ESCAPE in raw]
    return [config for config in found if isinstance(config, Mapping)]


def _count(value: Any) -> int:
    """A number of answers. Some upstreams take a string of digits for one, or a whole float."""
    if type(value) is str and value.strip().isdecimal() and len(value) < 16:
        value = int(value)
    if type(value) is float and 0 <= value < 1e15:
        value = -int(-value // 1)
    return min(value, MOST_CHOICES) if type(value) is int else 1


def _prompts(raw: Any) -> int:
    """Each of several prompts is answered; a list of numbers is one, as tokens."""
    value = decoded(raw) if bytes(raw)[:1] == b"[" else None
    return len(value) if isinstance(value, list) and value and type(value[0]) is not int else 1


def media_of(asked: Asked) -> tuple[str, ...]:
    """What the answer may be made of beside text."""
    fields = asked.fields
    found: Any = decoded(fields["modalities"]) if "modalities" in fields else None
    for config in _configs(asked, b"odalities"):
        found = config.get("responseModalities") or config.get("response_modalities")
    names = {name.lower() for name in found if isinstance(name, str)} if isinstance(found, list) else set()
    return tuple(sorted(names & {"audio", "image", "video"}))


def looks_closely(asked: Asked) -> bool:
    """Is Gemini told to look at all media in a high resolution?"""
    return any(is_close(config.get(key)) for config in _configs(asked, b"esolution") for key in RESOLUTIONS)


def context_of(asked: Asked) -> tuple[tuple[str, str], ...]:
    """What of a request chooses between prices, as the price table names it."""
    found: tuple[tuple[str, str], ...] = ()
    for name in CONTEXT:
        if name in asked.fields:
            value = decoded(asked.fields[name])
            value = value.get("type") if isinstance(value, Mapping) else value  # Bedrock
            if isinstance(value, str) and len(value) <= 32:
                found += (("service_tier" if name == "serviceTier" else name, value.lower()),)
    return found


def keeps_for_an_hour(asked: Asked) -> bool:
    """Is the request as a whole to be cached for an hour? Its parts may say so by themselves."""
    mark = decoded(asked.fields["cache_control"]) if "cache_control" in asked.fields else None
    return isinstance(mark, Mapping) and mark.get("ttl") == "1h"


def refers(asked: Asked, names: tuple[str, ...]) -> bool:
    """Does it continue something that the provider keeps?"""
    fields = asked.fields
    return any(name in fields and bytes(fields[name]) != b"null" for name in names)


def continues_thread(asked: Asked) -> bool:
    """Does it go on in a thread of messages that the provider keeps, rather than begin one?"""
    raw = asked.fields.get("thread")
    if raw is None or bytes(raw) == b"null":
        return False
    thread = decoded(raw)
    return not isinstance(thread, Mapping) or thread.get("type") != "create"
