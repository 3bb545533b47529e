"""YAML as the configuration reads it: core schema, lines, duplicates, bounds."""

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.config.source import MAX_BYTES, MAX_DEPTH, parse


def data(text):
    document = parse(text, "t.yaml")
    assert document.problems == []
    return document.data


def faults(text):
    return [str(problem) for problem in parse(text, "t.yaml").problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("no", "no"),
        ("Yes", "Yes"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("12", 12),
        ("-7", -7),
        ("012", 12),
        ("0o17", 15),
        ("0xff", 255),
        ("1_000", "1_000"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("2.", 2.0),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("12:30:45", "12:30:45"),
        ("2026-01-02", "2026-01-02"),
        ("'12'", "12"),
        ('"true"', "true"),
        ("''", ""),
        ("!!str 12", "12"),
        ("1" + "0" * 64, 1e64),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text, value):
    assert data(f"a: {text}") == {"a": value}


def test_keys_are_strings_as_written():
    assert data("4.10: a\ntrue: b\n~: c\n'q': d") == {"4.10": "a", "true": "b", "~": "c", "q": "d"}


def test_every_key_and_item_has_its_line():
    document = parse("a:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n", "t.yaml")
    assert document.lines == {
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 3,
        ("a", "c", "0"): 4,
        ("a", "c", "1"): 5,
        ("a", "c", "1", "d"): 5,
    }
    assert document.line(("a", "b", "missing", "deeper")) == 2
    assert document.line(("nowhere",)) == 0


def test_a_duplicate_key_is_named_with_both_lines():
    assert faults("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n") == [
        "t.yaml:4: b.c: stands twice, first on line 3",
        "t.yaml:5: a: stands twice, first on line 1",
    ]


def test_aliases_are_expanded():
    assert data("a: &x {b: 1}\nc: *x") == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: b: c", "t.yaml:1: not valid YAML: mapping values are not allowed here"),
        ("a: *nothing", "t.yaml:1: not valid YAML: found undefined alias 'nothing'"),
        ("a: 1\n---\nb: 2", "t.yaml:2: not valid YAML"),
        ("- a", "t.yaml:1: expected a mapping of settings"),
        ("text", "t.yaml:1: expected a mapping of settings"),
        ("a: \x00", "t.yaml: not valid YAML"),
        ("[" * 50_000, "t.yaml: not valid YAML"),
        ("? {a: b}\n: c", "t.yaml:1: a key must be a plain string"),
        ("a: !!python/object/apply:os.system ['true']", "t.yaml:1: a: explicit YAML tags are not used here"),
        ("a: !!int '3'", "t.yaml:1: a: explicit YAML tags are not used here"),
    ],
)
def test_what_cannot_be_read_is_said(text, said):
    (fault,) = faults(text)
    assert fault.startswith(said)


def test_aliases_cannot_multiply_without_bound():
    rows = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    rows += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    found = faults("\n".join(rows))
    assert len(found) == 1
    assert "too many values" in found[0]


def test_an_alias_to_itself_ends_at_the_depth_limit():
    document = parse("a: &a [*a]", "t.yaml")
    assert "nested too deep" in str(document.problems[0])
    assert len(document.problems[0].path) == MAX_DEPTH


def test_a_file_that_is_too_large_is_not_read():
    assert "larger than" in faults("#" * (MAX_BYTES + 1))[0]


@pytest.mark.parametrize("text", ["", "# nothing\n", "~", "---\n"])
def test_a_file_without_settings_is_empty(text):
    assert data(text) == {}


TEXT = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=12)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXT, JSON, max_size=5))
def test_json_is_yaml_and_means_the_same(value):
    assert data(json.dumps(value, ensure_ascii=False)) == value


@given(st.text())
@example("\ufeff")
@example("%YAML 9.9\n---\n")
@example("a: |99\n")
def test_no_text_makes_it_raise(text):
    document = parse(text, "t.yaml")
    assert isinstance(document.data, dict)
    for problem in document.problems:
        assert str(problem).startswith("t.yaml")
