"""Does an answer keep to the JSON that was asked for? The parts of JSON Schema that providers take; pure.

What is not known of a schema is not judged: a wrong "no" would teach that a good model is bad. That holds for patterns
(they are the client's, and may take for ever), formats and whatever lies beyond `_NODES` steps, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

ASKS = ("response_format", "text", "generationConfig", "generation_config", "output_config", "output_format")
_SCHEMAS = ("schema", "json_schema", "format", "responseSchema", "response_schema", "responseJsonSchema")
_DEPTH = 32
_NODES = 20_000  # steps of one judgement: a schema that refers to itself may branch for ever
_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
_LIMITS: Mapping[str, tuple[type | tuple[type, ...], Callable[[Any, Any], bool]]] = {
    "minimum": ((int, float), lambda value, most: value >= most),
    "maximum": ((int, float), lambda value, most: value <= most),
    "exclusiveMinimum": ((int, float), lambda value, most: value > most),
    "exclusiveMaximum": ((int, float), lambda value, most: value < most),
    "minLength": (str, lambda value, least: len(value) >= least),
    "maxLength": (str, lambda value, most: len(value) <= most),
    "minItems": (list, lambda value, least: len(value) >= least),
    "maxItems": (list, lambda value, most: len(value) <= most),
}
_decode = msgspec.json.Decoder().decode


def keeps_to(answer: str, fields: Mapping[str, Any]) -> bool:
    """`fields`: of the request, raw JSON each, one of which asks for JSON."""
    try:
        value = _decode(answer)
    except (msgspec.DecodeError, RecursionError):
        return False
    return fits(value, schema_of(fields))


def schema_of(fields: Mapping[str, Any]) -> Any:
    """The schema that is asked for; {} where any JSON will do."""
    for name in ASKS:
        if name in fields:
            try:
                found = _decode(bytes(fields[name]))
            except (msgspec.DecodeError, RecursionError):
                continue
            return _inner(found, 4)
    return {}


def _inner(value: Any, depth: int) -> Any:
    if not isinstance(value, dict) or not depth:
        return {}
    for name in _SCHEMAS:
        if isinstance(value.get(name), dict):
            inner = value[name]
            return inner if "type" in inner and inner["type"] not in ("json_schema", "json_object", "text") else _inner(
                inner, depth - 1
            )  # fmt: skip
    return {}


def fits(value: Any, schema: Any) -> bool:
    """Nothing in the schema, as far as it is understood, speaks against the value."""
    return _Judge(schema).fits(value, schema, _DEPTH)


class _Judge:
    """One judgement. `root`: where references start from."""

    __slots__ = ("_left", "_root")

    def __init__(self, root: Any) -> None:
        self._root, self._left = root, _NODES

    def fits(self, value: Any, schema: Any, depth: int) -> bool:
        self._left -= 1
        if schema is False:
            return False
        if not isinstance(schema, dict) or not depth or self._left < 0:
            return True
        if "$ref" in schema:
            return self.fits(value, self._found(schema["$ref"]), depth - 1)
        if not _typed(value, schema) or not _among(value, schema) or not _within(value, schema):
            return False
        if not self._combined(value, schema, depth):
            return False
        if isinstance(value, dict):
            return self._object_fits(value, schema, depth)
        if isinstance(value, list) and "items" in schema:
            first = len(_list(schema.get("prefixItems")))
            return all([self.fits(item, schema["items"], depth - 1) for item in value[first:]])
        return True

    def _found(self, ref: Any) -> Any:
        """What a reference within the schema means; {} where that is not known."""
        if not isinstance(ref, str) or ref[:1] != "#":
            return {}
        found = self._root
        for part in ref[1:].split("/")[1:]:
            found = found.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(found, dict) else {}
        return found

    def _combined(self, value: Any, schema: Mapping[str, Any], depth: int) -> bool:
        """Of `oneOf` it is not judged that no other one fits."""
        for name in ("anyOf", "oneOf"):
            parts = _list(schema.get(name))
            if parts and not any(self.fits(value, part, depth - 1) for part in parts):
                return False
        return all(self.fits(value, part, depth - 1) for part in _list(schema.get("allOf")))

    def _object_fits(self, value: Mapping[str, Any], schema: Mapping[str, Any], depth: int) -> bool:
        known = schema.get("properties")
        known = known if isinstance(known, dict) else {}
        if any([name not in value for name in _list(schema.get("required")) if isinstance(name, str)]):
            return False
        others = schema.get("additionalProperties")
        if "patternProperties" in schema:
            others = None
        if others is False and not value.keys() <= known.keys():
            return False
        return all([self.fits(item, known.get(name, others), depth - 1) for name, item in value.items()])


def _typed(value: Any, schema: Mapping[str, Any]) -> bool:
    stated = schema.get("type")
    names = [str(name).lower() for name in _list(stated)]
    if not names or any(name not in _TYPES for name in names) or (value is None and schema.get("nullable") is True):
        return True
    if isinstance(value, bool):
        return "boolean" in names
    if isinstance(value, float) and value.is_integer() and "integer" in names:
        return True
    return any([isinstance(value, _TYPES[name]) for name in names])


def _among(value: Any, schema: Mapping[str, Any]) -> bool:
    if "enum" in schema and value not in _list(schema["enum"]):
        return value is None and schema.get("nullable") is True
    return "const" not in schema or value == schema["const"]


def _within(value: Any, schema: Mapping[str, Any]) -> bool:
    """Limits of numbers, lengths and counts."""
    if isinstance(value, bool):
        return True
    for name in _LIMITS.keys() & schema.keys():
        kind, holds = _LIMITS[name]
        limit = schema[name]
        if isinstance(value, kind) and type(limit) in (int, float) and not holds(value, limit):
            return False
    return True


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
