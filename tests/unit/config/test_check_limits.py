"""`tollgate check` knows what a budget holds for: nothing is an error, doubt a warning, the rest one line each."""

import pytest

from gateway.config.check import errors, warnings
from gateway.config.check_limits import coverage
from gateway.config.load import load_with_source
from gateway.config.roster import Roster, roster


class Catalogue:
    """Knows two models, and a family of dated names by how they begin."""

    def names(self):
        return frozenset({"gpt-x", "gpt-y", "claude-x"})

    def knows(self, provider, model):
        return model in self.names() or model.startswith("claude-z-2026")

    def guess_provider(self, host, url_path=""):
        known = {"api.openai.com": "openai", "api.anthropic.com": "anthropic"}
        return known.get(host, "google" if "google" in host else "")

    def provider_of(self, upstream, host, url_path=""):
        return self.guess_provider(host, url_path) or upstream


KEYS = Roster(frozenset({"k1", "ci", "k2"}), frozenset({"core", "research-a", "research-b"}), 2)
LOCAL = "upstreams: {local: {dialect: openai, url: 'http://127.0.0.1:1'}}\n"
OPAQUE = "upstreams: {robots: {dialect: opaque, url: 'https://t.example.com'}}\n"


@pytest.fixture
def checked(home):
    def checked_(text, keys=KEYS):
        (home / "tollgate.yaml").write_text(text)
        (home / "tollgate.yaml").chmod(0o600)
        loaded = load_with_source(None, {"HOME": str(home)}, {})
        return (
            [str(error) for error in errors(loaded, Catalogue(), keys)],
            [str(warning) for warning in warnings(loaded, Catalogue(), Catalogue())],
            coverage(loaded.config, Catalogue(), keys),
        )

    return checked_


def budget(scope, match="'*'", more=""):
    return f"budgets: [{{scope: {scope}, match: {match}, tokens: 5{more}}}]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (budget("upstream", "opneai"), '1: budgets.0.match: matches no upstream; did you mean "openai"?'),
        (budget("upstream", "z*"), "matches no upstream; known: openai, anthropic, gemini"),
        (budget("team", "cor"), 'matches no team; did you mean "core"?'),
        (budget("team", "x-*"), "matches no team; known: core, default, research-a, research-b"),
        (budget("key", "k1k"), 'matches no key; did you mean "k1"?'),
        (budget("key", "none-*"), "matches no key; see `tollgate keys list`"),
        (budget("model", "gtp-*"), "matches no model"),
        (budget("model", "gpt-x-mini"), "matches no model"),
        ("limits: {rates: [{scope: team, match: x, rpm: 1}]}", "1: limits.rates.0.match: matches no team"),
        ("limits: {rates: [{match: nobody, rpm: 1}]}", "1: limits.rates.0.match: matches no key"),
    ],
)
def test_a_limit_that_matches_nothing_is_an_error(checked, text, said):
    (line,) = sorted(checked(text)[0])
    assert said in line.replace("known: anthropic, gemini, openai", "known: openai, anthropic, gemini")


@pytest.mark.parametrize(
    "text",
    [
        budget("global"),
        budget("upstream", "open*"),
        budget("team", "default"),
        budget("team", "research-*"),
        budget("team", "anyone") + "\nidentity: {tenant_header: x-team}",
        budget("key", "k1"),
        budget("key", "ci"),
        budget("key"),
        budget("agent", "nobody-yet"),
        budget("run", "r-*"),
        budget("model", "gpt-*"),
        budget("model", "gpt-x"),
        budget("model", "GPT-X"),
        budget("model", "models/gpt-x"),
        budget("model", "claude-z-2026-01-01"),
        budget("model", "claude-z-2026*"),
        budget("model", "fast") + "\naliases: {fast: own}\nprices: {models: {own: {input: 1, output: 1}}}",
        budget("model", "own") + "\nprices: {models: {openai/own: {input: 1, output: 1}}}",
        LOCAL + budget("model", "whatever"),
    ],
)
def test_a_limit_that_can_match_is_none(checked, text):
    assert checked(text)[0] == []


def test_without_a_key_store_no_key_and_no_further_team_exists(checked):
    assert checked(budget("key", "k1"), Roster())[0]
    assert checked(budget("team", "core"), Roster())[0]
    assert not checked(budget("team", "default"), Roster())[0]
    assert not checked(budget("key"), Roster())[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LOCAL + "budgets: [{scope: upstream, match: local, usd: 1}]", "0.usd: no price is known for calls of local"),
        (OPAQUE + "budgets: [{scope: team, usd: 1}]", "for calls of robots, which are refused under a budget in USD"),
        (
            OPAQUE + "budgets: [{scope: team, usd: 1}]\nspending: {unknown_price: allow}",
            "which are dealt with as `unknown_price: allow` says",
        ),
        (
            "aliases: {fast: own}\nbudgets: [{scope: model, match: fast, usd: 1}]",
            "budgets.0.usd: no price is known for calls of fast",
        ),
        (
            "budgets: [{scope: team, usd: 1, taper: [{at: 0.5, model: gtp}]}]",
            'budgets.0.taper.0.model: "gtp" is no alias, and no price is known',
        ),
        ("runs: {budget_usd: 1, taper: [{at: 0.5, model: gtp}]}", 'runs.taper.0.model: "gtp" is no alias'),
        ("loops: {downshift_to: {at: 0, model: gtp}}", 'loops.downshift_to.model: "gtp" is no alias'),
        ("workers: 60\nspending: {on_failure: open}", "spending.local_share: 60 workers may spend more than the whole"),
    ],
)  # fmt: skip
def test_one_doubt_one_warning(checked, text, said):
    found = [line for line in checked(text)[1] if ".url: " not in line and "aliases." not in line]
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    "text",
    [
        "budgets: [{scope: team, usd: 1}]",
        OPAQUE + "budgets: [{scope: upstream, match: openai, usd: 1}, {scope: global, tokens: 1}]",
        "budgets: [{scope: model, match: gpt-x, usd: 1, taper: [{at: 0.5, model: gpt-y}, {at: 0.6, model: fast}]}]\n"
        "aliases: {fast: claude-x}",
        "spending: {on_failure: open}",
        "workers: 60",
        "spending: {redis: 'redis://localhost:6379'}",
    ],
)
def test_what_is_clear_is_not_warned_of(checked, text):
    assert checked(text)[1] == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("budgets: [{scope: global, usd: 12.5, tokens: 9}]",
         "budgets.0: 12.5 USD and 9 tokens per month for all calls together"),
        ("budgets: [{scope: team, match: research-*, usd: 1, per: day, rolling: true}]",
         "budgets.0: 1 USD per rolling day for each team research-* (research-a, research-b)"),
        ("budgets: [{scope: agent, usd: 1, per: life}]", "budgets.0: 1 USD for life for each agent"),
        ("budgets: [{scope: upstream, match: openai, usd: 1}]", "budgets.0: 1 USD per month for each upstream openai"),
        ("budgets: [{scope: model, match: gpt-*, usd: 1}]",
         "budgets.0: 1 USD per month for each model gpt-* (2 of the catalogue)"),
        ("limits: {rates: [{rpm: 5, tpm: 7, concurrency: 2}]}",
         "limits.rates.0: 5 requests per minute, 7 tokens per minute, 2 calls at once for each key (ci, k1, k2)"),
        ("runs: {budget_usd: 2, max_calls: 200}", "runs: 2 USD, 200 calls for each run"),
    ],
)  # fmt: skip
def test_one_line_says_what_it_covers(checked, text, line):
    assert checked(text)[2] == [line]


def test_many_names_are_counted(checked):
    keys = Roster(frozenset(), frozenset(f"t{n}" for n in range(9)), 9)
    assert checked("budgets: [{scope: team, match: t*, usd: 1}]", keys)[2][0].endswith("(t0, t1, t2, t3 and 5 more)")


def test_the_roster_is_read_from_the_key_store(loading, home, key_store):
    config = loading("state: s")
    assert roster(config) == Roster()
    key_store(home / "s", ("k1", "ci", "core"), ("k2", "", ""))
    assert roster(config) == Roster(frozenset({"k1", "ci", "k2"}), frozenset({"core"}), 2)


def test_a_key_store_that_is_none_holds_nothing(loading, home):
    config = loading("state: s")
    (home / "s").mkdir()
    (home / "s" / "keys.sqlite").write_bytes(b"not a database" * 100)
    assert roster(config) == Roster()
