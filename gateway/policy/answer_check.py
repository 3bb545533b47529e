"""Does an answer have the form that was demanded? For cascades: see stages.cascade. Pure.

What cannot be judged is not held against a model: `UNREAD` and `SIZE` are no failures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.policy.answer_schema import fits
from gateway.ports import Form, Given

OK = "ok"
LENGTH, REFUSAL = "length", "refusal"  # it was cut at its limit; the model, or its provider, declined
JSON, SCHEMA = "json", "schema"  # it is no JSON; not of the schema
CALL, ARGUMENTS = "call", "arguments"  # it calls no tool, or none that it may; with arguments that do not fit
FAILURES = frozenset((LENGTH, REFUSAL, JSON, SCHEMA, CALL, ARGUMENTS))
SIZE, UNREAD = "size", "unread"  # larger than what is held back; not to be understood
_decode = msgspec.json.Decoder().decode
_NONE = object()


def verdict(demand: Form, given: Sequence[Given] | None) -> str:
    """Of all choices; the first that does not hold speaks for them."""
    if not given:
        return UNREAD
    return next((found for one in given if (found := _of(demand, one)) != OK), OK)


def _of(demand: Form, given: Given) -> str:
    if given.ended == "length":
        return LENGTH
    if given.refused or given.ended == "filtered":
        return REFUSAL
    if demand.call and (not given.calls or not _may(demand, given)):
        return CALL
    if given.calls:  # also where JSON was asked for: the model wants to know more first
        return OK if all([_fit(demand, name, text) for name, text in given.calls]) else ARGUMENTS
    if not demand.json:
        return OK
    value = _read(given.text)
    if value is _NONE:
        return JSON
    return OK if fits(value, demand.schema or {}) else SCHEMA


def _may(demand: Form, given: Given) -> bool:
    names = demand.names or demand.tools
    return all([name in names for name, _ in given.calls])


def _fit(demand: Form, name: str, arguments: str) -> bool:
    value = _read(arguments)
    return isinstance(value, dict) and fits(value, demand.tools.get(name) or {})


def _read(text: str) -> Any:
    try:
        return _decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return _NONE
