"""What the fake makes for a schema is valid against it."""

import random

import jsonschema
import pytest

from gateway.testing.fake_schema import instance

NODE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
            "required": ["name", "next"],
            "additionalProperties": False,
        }
    },
}

SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a", "b"]},
    {"type": "array", "items": {"type": "number"}, "minItems": 3},
    {"type": "array", "items": {"type": "boolean"}, "maxItems": 1},
    {"type": "string", "enum": ["red", "green"]},
    {"const": 42},
    {"type": "string", "minLength": 30, "maxLength": 31},
    {"type": "string", "format": "date-time"},
    {"type": "integer", "minimum": 5, "maximum": 7},
    {"type": "integer", "exclusiveMinimum": 5, "maximum": 6},
    {"type": "integer", "multipleOf": 7, "minimum": 20},
    {"type": "number", "minimum": 0.25, "exclusiveMaximum": 1.5},
    {"type": ["string", "null"]},
    {"allOf": [{"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]}]},
    {"properties": {"only": {"oneOf": [{"type": "string"}, {"type": "null"}]}}},
    NODE,
    True,
    {},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=repr)
def test_the_instance_is_valid(schema: object) -> None:
    for seed in range(20):
        jsonschema.validate(instance(schema, random.Random(seed)), schema)


def test_types_in_capitals_as_gemini_writes_them() -> None:
    value = instance({"type": "OBJECT", "properties": {"n": {"type": "INTEGER"}}}, random.Random(1))
    assert isinstance(value["n"], int)


def test_a_reference_to_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not resolve"):
        instance({"$ref": "#/$defs/none"}, random.Random(1))


def test_the_same_seed_gives_the_same_value() -> None:
    assert instance(SCHEMAS[0], random.Random(3)) == instance(SCHEMAS[0], random.Random(3))
