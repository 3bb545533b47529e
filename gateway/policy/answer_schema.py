"""Does an answer keep to the JSON that was asked for? The parts of JSON Schema that providers take; pure.

What is not known of a schema is not judged: a wrong "no" would teach that a good model is bad.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

ASKS = ("response_format", "text", "generationConfig", "generation_config", "output_config", "output_format")
_SCHEMAS = ("schema", "json_schema", "format", "responseSchema", "response_schema", "responseJsonSchema")
_DEPTH = 32
_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
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


def fits(value: Any, schema: Any, depth: int = _DEPTH) -> bool:
    """Nothing in the schema, as far as it is understood, speaks against the value."""
    if not isinstance(schema, dict) or not depth or "$ref" in schema:
        return True
    if not _typed(value, schema) or ("enum" in schema and value not in _list(schema["enum"])):
        return False
    if isinstance(value, dict):
        return _object_fits(value, schema, depth)
    if isinstance(value, list) and "items" in schema:
        return all([fits(item, schema["items"], depth - 1) for item in value])
    return True


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


def _object_fits(value: Mapping[str, Any], schema: Mapping[str, Any], depth: int) -> bool:
    known = schema.get("properties")
    known = known if isinstance(known, dict) else {}
    if any([name not in value for name in _list(schema.get("required")) if isinstance(name, str)]):
        return False
    if schema.get("additionalProperties") is False and not value.keys() <= known.keys():
        return False
    return all([fits(item, known.get(name), depth - 1) for name, item in value.items()])


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
