"""The published schema and the loader give the same verdict."""

import copy
import math
import re
import string
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from gateway.config import shape
from gateway.config.describe import FIELDS
from gateway.config.schema import Config
from gateway.config.schema_doc import markdown
from gateway.config.schema_json import DRAFT, json_schema, undescribed
from gateway.config.source import parse

ROOT = Path(__file__).parents[3]
SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)

FULL = parse(Path(__file__).with_name("full.yaml").read_text(), "full.yaml").data


def loads(data):
    """Would the loader take this shape? The walk and the conversion must agree."""
    faults = shape.faults(data)
    try:
        shape.build(data)
    except (ValueError, OverflowError):
        assert faults, "the conversion refuses what the walk takes"
        return False
    return not faults


def test_it_is_a_valid_schema_of_draft_2020_12():
    assert SCHEMA["$schema"] == DRAFT
    Draft202012Validator.check_schema(SCHEMA)


def test_the_page_is_the_schema():
    """`python -m gateway.config.schema_doc > docs/configuration.md` writes it anew."""
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == markdown()
    headings = {heading.lower().replace(".", "") for heading in re.findall(r"^## (.+)$", page, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= headings


def test_every_field_is_described_and_every_description_has_a_field():
    assert undescribed() == []
    texts = [text for section in FIELDS.values() for text in section.values()]
    assert all(text.endswith(".") for text in texts)
    properties = [SCHEMA["properties"], *(part["properties"] for part in SCHEMA["$defs"].values())]
    assert all("description" in field for section in properties for field in section.values())


def test_secrets_are_write_only():
    assert SCHEMA["properties"]["admin_token"]["writeOnly"]
    assert SCHEMA["$defs"]["Upstream"]["properties"]["key"]["writeOnly"]
    assert SCHEMA["$defs"]["Otlp"]["properties"]["headers"]["writeOnly"]
    assert SCHEMA["$defs"]["Spending"]["properties"]["redis"]["writeOnly"]


def test_the_full_example_names_every_field_and_passes_both():
    assert set(FULL) == set(Config.__struct_fields__)
    assert loads(FULL)
    VALIDATOR.validate(FULL)


def paths(value, path=()):
    yield path, value
    entries = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        entries = ((str(index), entry) for index, entry in enumerate(value))
    for key, entry in entries:
        yield from paths(entry, (*path, key))


def mutated(path, value):
    data = copy.deepcopy(FULL)
    section = data
    for key in path[:-1]:
        section = section[int(key) if isinstance(section, list) else key]
    section[int(path[-1]) if isinstance(section, list) else path[-1]] = value
    return data


def described(section, path=""):
    """Every field of the example, positions in a list left out."""
    if isinstance(section, list):
        return {name for entry in section for name in described(entry, path)}
    if not isinstance(section, dict):
        return {path}
    return {path} | {name for key, entry in section.items() for name in described(entry, f"{path}.{key}")}


@pytest.mark.parametrize(
    "name",
    [
        *("budgets", "runs", "loops", "spending", "limits", "limits.rates", "budgets.taper"),
        *("cache", "cache.exact", "cache.semantic", "cache.semantic.rules", "priorities", "overload"),
    ],
)
def test_the_full_example_sets_every_field_of_what_limits_spending(name):
    section = Config
    for key in name.split("."):
        type_ = {field.name: field.type for field in msgspec.structs.fields(section)}[key]
        section = next((part for part in getattr(type_, "__args__", ()) if isinstance(part, type)), type_)
    names = described(FULL)
    assert {f".{name}.{field}" for field in section.__struct_fields__} <= names


@pytest.mark.parametrize("path", [path for path, value in paths(FULL) if path], ids=".".join)
def test_no_field_takes_a_list_of_anything_else(path):
    data = mutated(path, [1])
    assert not loads(data)
    assert not VALIDATOR.is_valid(data)


@pytest.mark.parametrize("path", [path for path, value in paths(FULL) if isinstance(value, dict)], ids=".".join)
def test_an_unknown_field_is_refused_by_both_where_names_are_fixed(path):
    data = mutated((*path, "surprise"), {"x": 1})
    assert not loads(data)
    assert not VALIDATOR.is_valid(data)


WORDS = st.sampled_from(["", "openai", "off", "10", "x y", "127.0.0.1:1", "http/protobuf", "a\nb", "name\n"])
NUMBERS = st.sampled_from([-1, 0, 1, 0.5, 64, 65, 86_400, 86_401, 10**7, 65_535.5, 2**63 - 1])
VALUES = st.none() | st.booleans() | WORDS | NUMBERS | st.just({}) | st.just([]) | st.text(string.printable, max_size=5)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([path for path, _ in paths(FULL) if path]), VALUES)
def test_the_schema_and_the_loader_agree_on_any_change(path, value):
    data = mutated(path, value)
    if "name\n" in (value, *path) or (isinstance(value, str) and value.endswith("\n")):
        assert loads(data) <= VALIDATOR.is_valid(
            data
        )  # "$" of a regular expression matches before a line end in Python
    else:
        assert loads(data) == VALIDATOR.is_valid(data)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 2**63, 10**400, -(2**64)])
def test_numbers_out_of_range_are_refused(value):
    assert shape.faults(mutated(("telemetry", "sampling", "expensive_usd"), value))
    assert shape.faults(mutated(("limits", "body_bytes"), value))
