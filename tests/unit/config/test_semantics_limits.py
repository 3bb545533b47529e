"""Rules of budgets, limits and the breaker beyond their shape: each is broken once, alone."""

import pytest

LOW = "{at: 0.5, effort: low}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("budgets: [{scope: global}]", "budgets.0: sets no limit; name `usd`, `tokens` or both"),
        ("budgets: [{scope: global, match: x, usd: 1}]", "budgets.0.match: the global scope is one and has no name"),
        ("budgets: [{scope: team, match: '', usd: 1}]", "budgets.0.match: must be 1 to 200 printable"),
        ("budgets: [{scope: team, match: ' a', usd: 1}]", "budgets.0.match: must be 1 to 200 printable"),
        ('budgets: [{scope: team, match: "a\\tb", usd: 1}]', "budgets.0.match: must be 1 to 200 printable"),
        (f"budgets: [{{scope: team, match: {'a' * 201}, usd: 1}}]", "budgets.0.match: must be 1 to 200 printable"),
        ("budgets: [{scope: team, match: 'a**', usd: 1}]", "budgets.0.match: one * already stands for"),
        ("budgets: [{scope: global, usd: 1, per: life, rolling: true}]", "budgets.0.rolling: a budget for life has no"),
        (
            "budgets: [{scope: team, usd: 1}, {scope: team, tokens: 5}, {scope: team, usd: 2}]",
            "budgets.2.usd: a budget before it has the same scope, match, window and unit",
        ),
        (
            f"budgets: [{{scope: team, usd: 1, taper: [{LOW}, {LOW}]}}]",
            "budgets.0.taper.1.at: steps must ascend",
        ),
        (
            f"budgets: [{{scope: team, usd: 1, taper: [{{at: 0.2, stop: true}}, {LOW}]}}]",
            "budgets.0.taper.1: the step before it stops",
        ),
        ("budgets: [{scope: team, usd: 1, taper: [{at: 0.2}]}]", "budgets.0.taper.0: changes nothing"),
        (
            "budgets: [{scope: team, usd: 1, taper: [{at: 0.2, effort: low, stop: true}]}]",
            "budgets.0.taper.0.stop: a call that is stopped has",
        ),
        (
            "budgets: [{scope: team, usd: 1, taper: [{at: 0.2, model: ' '}]}]",
            "budgets.0.taper.0.model: stands for no model",
        ),
        ("limits: {rates: [{match: a}]}", "limits.rates.0: sets no limit; name `rpm`, `tpm` or `concurrency`"),
        ("limits: {rates: [{tpm: 5, burst: 1}]}", "limits.rates.0.burst: is a number of requests and needs `rpm`"),
        ("limits: {rates: [{rpm: 5}, {tpm: 5}]}", "limits.rates.1: limits before it have the same scope and match"),
        ("limits: {rates: [{scope: global, match: x, rpm: 5}]}", "limits.rates.0.match: the global scope is one"),
        (f"runs: {{taper: [{LOW}]}}", "runs.taper: its steps are shares of a budget; set `runs.budget_usd`"),
        (f"runs: {{budget_usd: 1, taper: [{LOW}, {LOW}]}}", "runs.taper.1.at: steps must ascend"),
        ("loops: {window: 4, period: 2, repeats: 5}", "loops.repeats: cannot be seen within so few steps"),
        ("loops: {window: 4, period: 3, repeats: 3}", "loops.period: a cycle shows when it came twice"),
        ("loops: {cycle: downshift}", "loops.cycle: there is nothing to go down to; set `loops.downshift_to`"),
        ("loops: {downshift_to: {at: 0}}", "loops.downshift_to: changes nothing"),
        ("spending: {timezone: Berlin}", "spending.timezone: no such time zone is known here"),
        ("spending: {timezone: Europe/Berlni}", "spending.timezone: no such time zone is known here; did you mean"),
        ("spending: {timezone: ../../etc/passwd}", "spending.timezone: no such time zone"),
        ("spending: {timezone: America}", "spending.timezone: no such time zone"),
        ("spending: {timezone: ''}", "spending.timezone: no such time zone"),
        ("spending: {clamp_floor: 2000, output_ceiling: 1000}", "spending.clamp_floor: is above `output_ceiling`"),
        ("spending: {redis: 'localhost:6379'}", "spending.redis: a URL of Redis begins with redis:// or rediss://"),
        ("spending: {redis: 'http://localhost'}", "spending.redis: a URL of Redis begins with"),
        ("spending: {redis: 'redis://h:99999'}", "spending.redis: "),
        ("spending: {redis: 'redis://'}", "spending.redis: the URL has no valid host"),
        ("spending: {redis: 'redis://h/x'}", "spending.redis: the path of a Redis URL is the number of a database"),
        ("spending: {redis: 'redis://:p w@h'}", "spending.redis: user name and password stand percent-encoded"),
        ("spending: {redis: $GONE}", "spending.redis: the environment variable GONE is not set"),
    ],
)
def test_a_broken_rule_is_the_one_problem(refused, text, problem):
    (line,) = refused(text)
    place, _, said = line.partition(": ")
    assert place.startswith("tollgate.yaml:")
    assert said.startswith(problem)


@pytest.mark.parametrize(
    "text",
    [
        "budgets: [{scope: team, match: 'a*b', usd: 0.01, tokens: 1}]",
        "budgets: [{scope: team, usd: 1}, {scope: team, usd: 1, per: day}, {scope: team, usd: 9, rolling: true}]",
        f"budgets: [{{scope: global, usd: 1, per: life, taper: [{LOW}, {{at: 1, stop: true}}]}}]",
        "limits: {rpm: 1, rates: [{rpm: 1}, {match: a, concurrency: 1}, {scope: global, rpm: 5, burst: 1}]}",
        "loops: {window: 8, period: 4, repeats: 8, cycle: downshift, downshift_to: {at: 0, model: x}}",
        "runs: {max_depth: 0, max_minutes: 0.5}",
        "spending: {timezone: Europe/Berlin}",
        "spending: {timezone: UTC}",
        "spending: {redis: 'redis://localhost'}",
        "spending: {redis: 'rediss://user:p%40ss@redis.example.com:6380/3'}",
        "spending: {redis: 'redis://:pass@[::1]:6379/0'}",
    ],
)
def test_what_keeps_the_rules_loads(loading, text):
    loading(text)


def test_the_position_of_a_problem_is_the_line_of_its_entry(refused):
    (line,) = refused("budgets:\n- {scope: global, usd: 1}\n- {scope: team}\n")
    assert line.startswith("tollgate.yaml:3: budgets.1: sets no limit")
    (line,) = refused("budgets:\n- {scope: global, usd: 1}\n- {scope: tame, usd: 1}\n")
    assert line.startswith("tollgate.yaml:3: budgets.1.scope: expected one of agent,")
    assert 'did you mean "team"?' in line


def test_the_password_of_redis_comes_from_the_environment_and_is_never_shown(loading, refused):
    text = "spending: {redis: 'redis://:$REDIS_PASSWORD@h:6379/0'}"
    config = loading(text, REDIS_PASSWORD="canary-1")
    assert config.spending.redis == "redis://:canary-1@h:6379/0"
    assert "canary" not in repr(config)
    for broken in ("http://:canary-1@h", "redis://:canary-1@h/x", "redis://:canary 1@h", "redis://:canary-1@h h"):
        (line,) = refused(f"spending: {{redis: '{broken}'}}")
        assert "canary" not in line
