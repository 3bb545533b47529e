"""Answers held against the JSON that was asked for."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from referencing.exceptions import Unresolvable

from gateway.policy.answer_schema import fits, keeps_to, schema_of

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "tags": {"items": {"enum": ["a", "b"]}}},
    "required": ["name"],
    "additionalProperties": False,
}


def fields(**given: Any) -> dict[str, Any]:
    return {name: json.dumps(value).encode() for name, value in given.items()}


@pytest.mark.parametrize(
    "asked",
    [
        fields(response_format={"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}}),
        fields(text={"format": {"type": "json_schema", "name": "p", "schema": PERSON}}),
        fields(generationConfig={"responseMimeType": "application/json", "responseSchema": PERSON}),
        fields(output_config={"format": {"type": "json_schema", "schema": PERSON}}),
        fields(output_format={"type": "json_schema", "schema": PERSON}),
    ],
)
def test_the_schema_is_found_in_each_api(asked: dict[str, Any]) -> None:
    assert schema_of(asked) == PERSON
    assert keeps_to('{"name": "Ada", "age": 36, "tags": ["a"]}', asked)
    for wrong in ('{"age": 36}', '{"name": "Ada", "age": "36"}', '{"name": "A", "x": 1}', '{"name": "Ada"', "Ada"):
        assert not keeps_to(wrong, asked)


def test_where_any_json_will_do() -> None:
    asked = fields(response_format={"type": "json_object"})
    assert schema_of(asked) == {}
    assert keeps_to('{"anything": [1, 2]}', asked)
    assert not keeps_to("Here you are: {}", asked)
    assert not keeps_to("[" * 100_000, asked)


@pytest.mark.parametrize(
    ("value", "schema", "good"),
    [
        ({"tags": ["c"], "name": "x"}, PERSON, False),
        (3.0, {"type": "integer"}, True),
        (3.5, {"type": "integer"}, False),
        (True, {"type": "integer"}, False),
        (None, {"type": ["string", "null"]}, True),
        (None, {"type": "STRING", "nullable": True}, True),
        ("x", {"type": "OBJECT"}, False),  # as Gemini writes it
        ("x", {"$ref": "#/x", "type": "object"}, True),  # not understood, not judged
        ("x", {"type": "date"}, True),
        ("x", True, True),
        ("x", {"properties": {"y": False}}, True),
        ({"y": 1}, {"properties": {"y": False}}, False),
        ({"a": 1}, {"$ref": "#/$defs/n", "$defs": {"n": {"required": ["b"]}}}, False),
        (
            {"a": {"a": {"a": 1}}},
            {"$defs": {"t": {"type": "object"}}, "properties": {"a": {"$ref": "#"}}, "type": "object"},
            False,
        ),
        ({"a": 1}, {"$ref": "other.json#/a"}, True),
        (1, {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 2}]}, False),
        (2, {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 2}]}, True),
        (2, {"oneOf": [{"type": "integer"}, {"minimum": 2}]}, True),  # that both fit is not judged
        ("ab", {"allOf": [{"minLength": 1}, {"maxLength": 1}]}, False),
        ([1, 2, 3], {"maxItems": 2}, False),
        (5, {"exclusiveMaximum": 5}, False),
        (5, {"maximum": "5"}, True),
        ("b", {"const": "a"}, False),
        (None, {"enum": ["a"], "nullable": True}, True),
        ("(((((((((((((((", {"pattern": "(a+)+$", "format": "email"}, True),
        ({"x-1": 1}, {"patternProperties": {"^x-": {}}, "additionalProperties": False}, True),
        ({"x": "1"}, {"additionalProperties": {"type": "integer"}}, False),
        (["a", 1, 2], {"prefixItems": [{"type": "string"}], "items": {"type": "integer"}}, True),
        ([{"name": 1}], {"type": "array", "items": PERSON}, False),
    ],
)
def test_what_fits(value: Any, schema: Any, good: bool) -> None:
    assert fits(value, schema) is good


def test_a_schema_that_branches_for_ever_is_given_up() -> None:
    branch = {"allOf": [{"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, {"anyOf": [{"$ref": "#"}, {"type": "string"}]}]}
    assert fits(1, {**branch, "anyOf": [{"$ref": "#"}, {"$ref": "#"}]})
    assert fits([[1] * 300] * 300, {"items": {"items": {"type": "integer"}}})


SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 2.0, "", "a", "ab"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)
SCHEMAS: Any = st.deferred(
    lambda: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from([*TYPES, ["string", "null"], ["integer", "object"]]),
            "enum": st.lists(st.sampled_from(["a", "b", 7]), min_size=1, max_size=2),
            "minimum": st.integers(-2, 2),
            "maxLength": st.integers(0, 2),
            "minItems": st.integers(0, 2),
            "required": st.lists(st.sampled_from("ab"), max_size=1),
            "properties": st.dictionaries(st.sampled_from("ab"), SCHEMAS, max_size=2),
            "additionalProperties": st.booleans() | SCHEMAS,
            "items": SCHEMAS,
            "anyOf": st.lists(SCHEMAS, min_size=1, max_size=2),
            "allOf": st.lists(SCHEMAS, min_size=1, max_size=2),
            "$ref": st.sampled_from(["#", "#/properties/a", "#/items"]),
            "pattern": st.just("^b"),
        },
    )
)
TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")


@settings(max_examples=100, deadline=None)
@given(SCHEMAS, VALUES)
def test_what_a_validator_takes_is_never_refused(schema: Any, value: Any) -> None:
    try:
        valid = jsonschema.Draft202012Validator(schema).is_valid(value)
    except (RecursionError, Unresolvable):  # it refers to itself, or to nothing
        assert fits(value, schema) in (True, False)
    else:
        assert fits(value, schema) or not valid
