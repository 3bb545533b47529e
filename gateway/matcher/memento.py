"""What a scope has learned, as bytes, and back.

A scope is made of numbers, containers and a few classes of `gateway.policy`. It is written attribute by attribute, so
that this module need not know them. What was written by code with other attributes is not read: a scope that starts
anew serves nothing, one that is read wrongly might.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from typing import Any

import msgspec
from msgspec import Struct

from gateway.policy.semantic_scope import Scope

_CLASSES = {
    name: found
    for module in list(sys.modules.values())
    if module.__name__.startswith("gateway.policy.semantic_")  # all that a scope is made of is loaded with it
    for name, found in vars(module).items()
    if isinstance(found, type) and found.__module__ == module.__name__
}
_PLAIN = (type(None), bool, int, float, str, bytes)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(strict=False).decode
_FAULTS = (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError)


def dumped(scope: Scope) -> bytes:
    """Raises TypeError for what this module cannot write."""
    return _encode(_plain(scope))


def loaded(data: bytes) -> Scope | None:
    """None where it is of another version, or no scope at all."""
    try:
        scope = _value(_decode(data))
    except _FAULTS:
        return None
    return scope if isinstance(scope, Scope) and _alike(scope, Scope(0.01)) else None


def _names(owner: Any) -> list[str]:
    """The attributes of an instance of a known class."""
    kind = type(owner)
    if issubclass(kind, Struct):
        return list(kind.__struct_fields__)
    slots = [name for base in kind.__mro__ for name in getattr(base, "__slots__", ())]
    return slots or list(vars(owner))


def _alike(one: object, other: object) -> bool:
    """Have they the same attributes, of the same kinds, as far as classes of ours go?"""
    if type(one) is not type(other):
        return isinstance(one, int | float) and isinstance(other, int | float)
    if type(one).__name__ not in _CLASSES:
        return True
    names = _names(other)
    return sorted(_names(one)) == sorted(names) and all(
        [_alike(getattr(one, name), getattr(other, name)) for name in names]
    )


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is list:
        return ["l", *map(_plain, value)]
    if kind is tuple:
        return ["t", *map(_plain, value)]
    if kind in (set, frozenset):
        return ["s" if kind is set else "f", *map(_plain, value)]
    if kind is deque:
        return ["q", value.maxlen, *map(_plain, value)]
    if kind in (dict, Counter):
        flat = [_plain(part) for pair in value.items() for part in pair]
        return ["d" if kind is dict else "c", *flat]
    if kind.__name__ in _CLASSES:
        flat = [part for name in _names(value) for part in (name, _plain(getattr(value, name)))]
        return ["o", kind.__name__, *flat]
    raise TypeError(f"a scope holds {kind.__name__}, which cannot be written")


def _value(plain: Any) -> Any:
    if not isinstance(plain, list):
        return plain
    kind, *rest = plain
    if kind == "o":
        return _instance(rest[0], rest[1:])
    if kind == "q":
        return deque(map(_value, rest[1:]), maxlen=rest[0])
    values = list(map(_value, rest))
    if kind in ("d", "c"):
        pairs = dict(zip(values[::2], values[1::2], strict=True))
        return pairs if kind == "d" else Counter(pairs)
    makers: dict[str, Any] = {"l": list, "t": tuple, "s": set, "f": frozenset}
    return makers[kind](values)


def _instance(name: str, flat: list[Any]) -> Any:
    kind = _CLASSES[name]
    fields = {flat[at]: _value(flat[at + 1]) for at in range(0, len(flat), 2)}
    if issubclass(kind, Struct):
        return kind(**fields)
    made = object.__new__(kind)
    for field, value in fields.items():
        setattr(made, field, value)
    return made
