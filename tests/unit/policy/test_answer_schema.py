"""Answers held against the JSON that was asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
        ([{"name": 1}], {"type": "array", "items": PERSON}, False),
    ],
)
def test_what_fits(value: Any, schema: Any, good: bool) -> None:
    assert fits(value, schema) is good
