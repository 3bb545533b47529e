"""Does a document have the shape of the schema? The walk finds every fault, where a conversion stops at the first.

`msgspec.convert` stays the authority: it converts what passes here, and a test holds the two to the same verdict.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import inspect

from gateway.config.problems import Path, Problem, did_you_mean, shown
from gateway.config.schema import Config, Config_

_ROOT = inspect.type_info(Config)


def faults(data: Mapping[str, Any]) -> list[Problem]:
    """Every deviation of plain data from the type `Config`; empty where `build` will succeed."""
    return list(_walk(_ROOT, data, (), secret=False))


def build(data: Mapping[str, Any]) -> Config:
    """Convert plain data without faults. Raises msgspec.ValidationError for data with faults."""
    return msgspec.convert(data, Config)


def _walk(type_: inspect.Type, value: Any, path: Path, *, secret: bool) -> Iterable[Problem]:
    bare = _bare(type_)
    if isinstance(bare, inspect.UnionType):
        yield from _union(bare, value, path, secret=secret)
    elif isinstance(bare, inspect.StructType):
        yield from _struct(bare, value, path)
    elif isinstance(bare, inspect.DictType):
        yield from _dict(bare, value, path, secret=secret)
    elif isinstance(bare, inspect.VarTupleType):
        yield from _list(bare, value, path, secret=secret)
    elif not _fits(type_, value):
        yield _unexpected(type_, value, path, secret=secret)


def _union(type_: inspect.UnionType, value: Any, path: Path, *, secret: bool) -> Iterable[Problem]:
    for member in map(_bare, type_.types):
        if isinstance(member, inspect.StructType | inspect.DictType):
            if isinstance(value, dict):
                yield from _walk(member, value, path, secret=secret)
                return
        elif _fits(member, value):
            return
    yield _unexpected(type_, value, path, secret=secret)


def _struct(type_: inspect.StructType, value: Any, path: Path) -> Iterable[Problem]:
    if not isinstance(value, dict):
        yield Problem(path, expected=_phrase(type_), got=shown(value))
        return
    fields = {field.encode_name: field for field in type_.fields}
    hidden = type_.cls.secret if issubclass(type_.cls, Config_) else frozenset()
    for key, entry in value.items():
        if key in fields:
            yield from _walk(fields[key].type, entry, (*path, key), secret=key in hidden)
        else:
            free = fields.keys() - value.keys()  # a field that is set already is not what was meant
            hint = did_you_mean(key, sorted(free)) or "known here: " + ", ".join(fields)
            yield Problem((*path, key), reason="unknown field", hint=hint)
    for name, field in fields.items():
        if field.required and name not in value:
            yield Problem(path, reason=f'"{name}" is missing', hint=f"expected {_phrase(field.type)}")


def _dict(type_: inspect.DictType, value: Any, path: Path, *, secret: bool) -> Iterable[Problem]:
    if not isinstance(value, dict):
        yield Problem(path, expected=_phrase(type_), got=shown(value))
        return
    for key, entry in value.items():
        if not _fits(type_.key_type, key):
            yield Problem((*path, key), reason=f"the key must be {_phrase(type_.key_type)}")
        yield from _walk(type_.value_type, entry, (*path, key), secret=secret)


def _list(type_: inspect.VarTupleType, value: Any, path: Path, *, secret: bool) -> Iterable[Problem]:
    if not isinstance(value, list):
        yield Problem(path, expected=_phrase(type_), got=shown(value))
        return
    for position, entry in enumerate(value):
        yield from _walk(type_.item_type, entry, (*path, str(position)), secret=secret)


def _fits(type_: inspect.Type, value: Any) -> bool:
    match _bare(type_):
        case inspect.NoneType():
            return value is None
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.StrType(pattern=None):
            return isinstance(value, str)
        case inspect.StrType(pattern=str(pattern)):  # where "$" would match before a line end, too
            return isinstance(value, str) and "\n" not in value and re.search(pattern, value) is not None
        case inspect.LiteralType(values=values):
            return isinstance(value, str) and value in values
        case inspect.IntType() as number:
            return isinstance(value, int) and not isinstance(value, bool) and _within(number, value)
        case inspect.FloatType() as number:
            return isinstance(value, int | float) and not isinstance(value, bool) and _within(number, value)
        case other:
            raise TypeError(f"no rule for {other}")


def _within(type_: inspect.IntType | inspect.FloatType, value: float) -> bool:
    if not -(2**63) < value < 2**63:  # also false for NaN
        return False
    return (
        (type_.gt is None or value > type_.gt)
        and (type_.ge is None or value >= type_.ge)
        and (type_.lt is None or value < type_.lt)
        and (type_.le is None or value <= type_.le)
    )


def _unexpected(type_: inspect.Type, value: Any, path: Path, *, secret: bool) -> Problem:
    got = "something else" if secret else shown(value)
    hint, bare = "", _bare(type_)
    if isinstance(bare, inspect.LiteralType) and isinstance(value, str):
        hint = did_you_mean(value, [str(choice) for choice in bare.values])
    elif isinstance(value, str) and not secret and _is_number(value):
        hint = "write it without quotes"
    return Problem(path, expected=_phrase(type_), got=got, hint=hint)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text) is not None


def _bare(type_: inspect.Type) -> inspect.Type:
    return type_.type if isinstance(type_, inspect.Metadata) else type_


def _phrase(type_: inspect.Type) -> str:
    """What is expected, in words: "a number of seconds > 0 and <= 86400"."""
    match type_:
        case inspect.Metadata(type=inner, extra_json_schema=extra):
            title = (extra or {}).get("title")
            return f"a {title}{_bounds(inner)}" if title else _phrase(inner)
        case inspect.UnionType(types=types):
            return " or ".join(_phrase(member) for member in types)
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(map(str, values))
        case inspect.StructType(cls=cls):
            return f"a mapping ({cls.__name__.lower()})"
    simple: dict[type[inspect.Type], str] = {
        inspect.NoneType: "nothing (null)",
        inspect.BoolType: "true or false",
        inspect.StrType: "a string",
        inspect.IntType: "a whole number",
        inspect.FloatType: "a number",
        inspect.DictType: "a mapping",
        inspect.VarTupleType: "a list",
    }
    return simple[type(type_)] + _bounds(type_)


def _bounds(type_: inspect.Type) -> str:
    if not isinstance(type_, inspect.IntType | inspect.FloatType):
        return ""
    signs = ((">", type_.gt), (">=", type_.ge), ("<", type_.lt), ("<=", type_.le))
    parts = [f"{sign} {bound:.15g}" for sign, bound in signs if bound is not None]
    return " " + " and ".join(parts) if parts else ""
