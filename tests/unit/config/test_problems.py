"""How a finding reads."""

import pytest

from gateway.config.problems import ConfigError, Problem, did_you_mean, dotted, shown


def test_a_problem_reads_place_path_reason_hint():
    problem = Problem(
        ("upstreams", "openai", "timout"),
        reason="unknown field",
        hint='did you mean "timeouts"?',
        source="tollgate.yaml",
        line=12,
    )
    assert str(problem) == 'tollgate.yaml:12: upstreams.openai.timout: unknown field; did you mean "timeouts"?'


def test_a_problem_may_say_what_was_expected_and_found():
    problem = Problem(("workers",), expected="a whole number >= 1", got="0", source="TOLLGATE_WORKERS")
    assert str(problem) == "TOLLGATE_WORKERS: workers: expected a whole number >= 1, got 0"
    assert str(Problem(expected="a mapping")) == "expected a mapping"


def test_an_error_lists_its_problems_in_the_order_of_the_file():
    error = ConfigError([Problem(reason="later", source="f", line=9), Problem(reason="first", source="f", line=2)])
    assert str(error) == "f:2: first\nf:9: later"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("a", "b"), "a.b"),
        (("aliases", "gpt-5.6", "model"), 'aliases."gpt-5.6".model'),
        (("x", 'q"q'), 'x."q\\"q"'),
        (("items", "0"), "items.0"),
        ((), ""),
        (("headers", "sk-0123456789abcdef"), "headers.(19 characters)"),
        (("headers", "Bearer 0123456789abcdef"), "headers.(23 characters)"),
        (("aliases", "task-force-model-1"), "aliases.task-force-model-1"),
        (("", "new\n"), '""."new\\n"'),
    ],
)
def test_paths(path, text):
    assert dotted(path) == text


def test_did_you_mean_names_the_closest_word_or_nothing():
    assert did_you_mean("timout", ["timeouts", "url"]) == 'did you mean "timeouts"?'
    assert did_you_mean("zzz", ["timeouts", "url"]) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nothing"),
        (True, "true"),
        (3, "3"),
        (0.5, "0.5"),
        ("10s", '"10s"'),
        ("", "a string of 0 characters"),
        ("sk-1234567890abcdef", "a string of 19 characters"),
        ({}, "a mapping"),
        ([], "a list"),
        (b"", "bytes"),
    ],
)
def test_values_are_shown_without_giving_secrets_away(value, text):
    assert shown(value) == text
