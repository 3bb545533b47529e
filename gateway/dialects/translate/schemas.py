"""Gemini's own `Schema` (a part of OpenAPI 3.0, in the JSON of Protocol Buffers) -> JSON Schema."""

from __future__ import annotations

from typing import Any

_NAMES = {
    "anyOf": "anyOf",
    "maxItems": "maxItems",
    "minItems": "minItems",
    "maxLength": "maxLength",
    "minLength": "minLength",
    "maxProperties": "maxProperties",
    "minProperties": "minProperties",
    "additionalProperties": "additionalProperties",
    "defs": "$defs",
    "ref": "$ref",
    "example": "examples",
}
_COUNTS = frozenset(("maxItems", "minItems", "maxLength", "minLength", "maxProperties", "minProperties"))
_DEEPEST = 64


def camel(name: str) -> str:
    """`max_items` as `maxItems`: Protocol Buffers' JSON takes both."""
    head, *rest = name.split("_")
    return head + "".join([part[:1].upper() + part[1:] for part in rest]) if head and rest else name


def json_schema(schema: dict[str, Any], depth: int = 0) -> dict[str, Any]:
    """`propertyOrdering` has no place in JSON Schema: there the order of `properties` says it."""
    found: dict[str, Any] = {}
    for written, value in schema.items():
        name = camel(written)
        if value is None or name in ("nullable", "propertyOrdering"):
            continue
        found[_NAMES.get(name, name)] = _value(name, value, depth)
    if schema.get("nullable") is True:
        _allow_null(found)
    return found


def _value(name: str, value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        return value
    if name == "type" and isinstance(value, str):
        return value.lower()
    if name in _COUNTS and isinstance(value, str) and value.isdecimal() and len(value) < 16:
        return int(value)  # 64-bit numbers are strings in the JSON of Protocol Buffers
    if name == "example":
        return [value]
    if name in ("properties", "defs") and isinstance(value, dict):
        return {key: json_schema(one, depth + 1) if isinstance(one, dict) else one for key, one in value.items()}
    if name in ("items", "additionalProperties") and isinstance(value, dict):
        return json_schema(value, depth + 1)
    if name == "anyOf" and isinstance(value, list):
        return [json_schema(one, depth + 1) if isinstance(one, dict) else one for one in value]
    return value


def _allow_null(found: dict[str, Any]) -> None:
    kind = found.get("type")
    if isinstance(kind, str):
        found["type"] = [kind, "null"]
    elif isinstance(found.get("anyOf"), list):
        found["anyOf"] = [*found["anyOf"], {"type": "null"}]
    if isinstance(found.get("enum"), list) and None not in found["enum"]:
        found["enum"] = [*found["enum"], None]
