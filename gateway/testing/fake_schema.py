"""A valid instance for a JSON Schema, as structured outputs promise."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

_PROSE = (
    "the gate keeps a count of every call that passes and tells which agent asked for it while costs stay in view "
    "because budgets matter when models plan tools run tests fail users wait and answers stream in small steps "
    "over lines between machines until the last token arrives and the ledger closes without a missing entry"
)
WORDS = _PROSE.split()

_FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "duration": "PT1H",
    "email": "agent@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
}

Schema = Mapping[str, Any]


def instance(schema: Any, rng: random.Random) -> Any:
    """Raises ValueError for a reference that does not resolve. `pattern` and `not` are not honoured."""
    return _Maker(schema if isinstance(schema, Mapping) else {}, rng).make(schema, 0)


class _Maker:
    def __init__(self, root: Schema, rng: random.Random) -> None:
        self._root, self._rng = root, rng
        self._types: dict[str, Callable[[Schema, int], Any]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "number": self._number,
            "integer": self._integer,
            "boolean": lambda _schema, _depth: self._rng.random() < 0.5,
            "null": lambda _schema, _depth: None,
        }

    def make(self, schema: Any, depth: int) -> Any:
        if not isinstance(schema, Mapping):
            return None if schema is False else self._word()
        if "$ref" in schema:
            return self.make(self._resolve(str(schema["$ref"])), depth + 1)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._rng.choice(list(schema["enum"]))
        for key in ("anyOf", "oneOf"):
            if schema.get(key):
                return self.make(self._shallow(schema[key], depth), depth + 1)
        if schema.get("allOf"):
            return self.make(_merged(schema), depth + 1)
        return self._types.get(self._kind(schema, depth), self._string)(schema, depth)

    def _kind(self, schema: Schema, depth: int) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = "null" if depth > 6 and "null" in kind else kind[0]
        if isinstance(kind, str):
            return kind.lower()  # Gemini writes types in capitals
        return "object" if "properties" in schema else "array" if "items" in schema else "string"

    def _shallow(self, options: list[Any], depth: int) -> Any:
        """Deep down prefer what ends: recursive schemas offer null or a plain type beside the recursion."""
        plain = [o for o in options if isinstance(o, Mapping) and "$ref" not in o and o.get("type") != "object"]
        return plain[-1] if depth > 4 and plain else options[0]

    def _resolve(self, ref: str) -> Any:
        node: Any = self._root
        for part in ref.removeprefix("#").strip("/").split("/") if ref != "#" else []:
            if not isinstance(node, Mapping) or part not in node:
                raise ValueError(f"schema reference does not resolve: {ref}")
            node = node[part]
        return node

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        required = set(schema.get("required", ()))
        properties = schema.get("properties", {})
        return {k: self.make(v, depth + 1) for k, v in properties.items() if depth < 6 or k in required}

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        least = int(schema.get("minItems", 0))
        size = max(least, min(int(schema.get("maxItems", 2)), 0 if depth > 6 else 2))
        return [self.make(schema.get("items", {}), depth + 1) for _ in range(size)]

    def _string(self, schema: Schema, _depth: int) -> str:
        text = _FORMATS.get(str(schema.get("format")), "")
        if not text:
            text = " ".join(self._word() for _ in range(3))
            while len(text) < int(schema.get("minLength", 0)):
                text += " " + self._word()
        return text[: int(schema.get("maxLength", len(text)))]

    def _number(self, schema: Schema, depth: int) -> float:
        low, high = _range(schema)
        return round(self._rng.uniform(low, high), 2) if high - low >= 0.01 else low

    def _integer(self, schema: Schema, _depth: int) -> int:
        low, high = _range(schema)
        step = int(schema.get("multipleOf", 1))
        first = -(-int(low) // step) * step
        return self._rng.randrange(first, max(first, int(high)) + 1, step)

    def _word(self) -> str:
        return self._rng.choice(WORDS)


def _range(schema: Schema) -> tuple[float, float]:
    low = float(schema.get("minimum", schema.get("exclusiveMinimum", 0) + ("exclusiveMinimum" in schema)))
    high = float(schema.get("maximum", schema.get("exclusiveMaximum", low + 101) - ("exclusiveMaximum" in schema)))
    return low, high


def _merged(schema: Schema) -> dict[str, Any]:
    merged: dict[str, Any] = {k: v for k, v in schema.items() if k != "allOf"}
    for part in schema["allOf"]:
        for key, value in part.items():
            if key == "properties":
                merged[key] = {**merged.get(key, {}), **value}
            elif key == "required":
                merged[key] = [*merged.get(key, ()), *value]
            else:
                merged[key] = value
    return merged
