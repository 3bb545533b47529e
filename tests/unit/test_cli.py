"""The command line: what it takes, how it fails, how it ends."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from gateway import __version__, cli
from gateway.config.problems import ConfigError, Problem
from gateway.errors import LedgerUnavailable
from gateway.recorder.ledger import Ledger
from gateway.recorder.ledger_rebuild import dump
from gateway.testing.records import call_record

COMMANDS = [
    ("serve",),
    ("demo",),
    ("run",),
    ("runs", "list"),
    ("runs", "kill"),
    ("runs", "resume"),
    ("runs", "raise"),
    ("runs", "outcome"),
    ("check",),
    ("config", "schema"),
    ("config", "show"),
    ("journal", "cat"),
    ("journal", "verify"),
    ("ledger", "rebuild"),
    ("keys", "create"),
    ("keys", "list"),
    ("keys", "rotate"),
    ("keys", "disable"),
    ("limits", "set"),
    ("limits", "list"),
    ("limits", "remove"),
    ("version",),
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home and working directory, and an environment without our variables."""
    for name in list(os.environ):
        if name.startswith(("TOLLGATE_", "OTEL_")) or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    assert ended.value.code == 0
    assert f"usage: tollgate {' '.join(command)}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["nonsense"], ["journal"], ["config", "x"], ["serve", "--workers", "two"]),
        *(["demo", "--seconds", seconds] for seconds in ("nan", "inf", "0", "-1", "soon")),
    ],
)
def test_a_wrong_command_line_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: tollgate" in capsys.readouterr().err


def test_no_option_takes_a_secret():
    def options(parser):
        for action in parser._actions:
            yield from action.option_strings
            for sub in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
                yield from options(sub)

    named = [name for name in options(cli.parser()) if name != "--key-id"]  # an id is no secret
    assert not [name for name in named if any(word in name for word in ("token", "key", "secret"))]


def test_version(capsys):
    assert cli.main(["version"]) == 0
    assert capsys.readouterr().out.startswith(f"tollgate {__version__}, Python 3.")


def test_check_says_what_is_in_force(home, capsys):
    assert cli.main(["check"]) == 0
    out = capsys.readouterr().out
    assert "openai: https://api.openai.com (the key of the client passes through)" in out
    assert "built-in defaults (no tollgate.yaml here): no problems, 0 warnings; prices of genai-prices-" in out


def test_check_names_every_problem_and_fails(home, capsys):
    (home / "tollgate.yaml").write_text(
        "workers: 0\nlisten: x\nupstreams: {openai: {dialect: openai, url: 'https://x.y', timout: 1}}"
    )
    assert cli.main(["check"]) == 2
    assert capsys.readouterr().out.splitlines() == [
        "error: tollgate.yaml:1: workers: expected a whole number >= 1 and <= 64, got 0",
        'error: tollgate.yaml:3: upstreams.openai.timout: unknown field; did you mean "timeouts"?',
        "tollgate.yaml: 2 problems",
    ]


def test_check_fails_on_warnings_only_when_strict(home, capsys):
    (home / "tollgate.yaml").write_text("aliases: {fast: no-such-model}")
    assert cli.main(["check"]) == 0
    assert cli.main(["check", "--strict"]) == 1
    assert 'warning: tollgate.yaml:1: aliases.fast: no price is known for "no-such-model"' in capsys.readouterr().out


def test_check_warns_of_a_variable_that_nobody_reads(home, capsys, monkeypatch):
    monkeypatch.setenv("TOLLGATE_WORKRES", "4")
    monkeypatch.setenv("TOLLGATE_PORT", "tcp://10.0.0.1:8787")  # as Kubernetes has it
    assert cli.main(["check"]) == 0
    warned = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: TOLLGATE_")]
    assert warned == ["warning: TOLLGATE_WORKRES: this variable is not read; did you mean TOLLGATE_WORKERS?"]


def test_check_fails_on_a_budget_that_matches_nothing(home, capsys):
    (home / "tollgate.yaml").write_text("budgets:\n- {scope: upstream, match: opnai, usd: 1}\n")
    assert cli.main(["check"]) == 2
    out = capsys.readouterr().out
    assert 'tollgate.yaml:2: budgets.0.match: matches no upstream; did you mean "openai"?' in out


def test_check_says_what_each_budget_covers(home, capsys):
    (home / "tollgate.yaml").write_text("budgets: [{scope: model, match: claude-*, usd: 1.5, per: day}]\n")
    assert cli.main(["check", "--strict"]) == 0
    assert "  budgets.0: 1.5 USD per day for each model claude-* (" in capsys.readouterr().out


def test_check_reads_the_prices_of_litellm(home, capsys):
    (home / "tollgate.yaml").write_text("prices: {litellm_file: p.json}")
    (home / "p.json").write_text("not json")
    assert cli.main(["check"]) == 2
    assert "error: tollgate.yaml:1: prices.litellm_file: not usable: " in capsys.readouterr().out


def test_check_takes_the_file_named(home, capsys):
    (home / "other.yaml").write_text("workers: 2")
    assert cli.main(["check", "--config", "other.yaml"]) == 0
    assert "other.yaml: no problems" in capsys.readouterr().out


def test_schema_is_json(capsys):
    assert cli.main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "tollgate.yaml"


def test_show_hides_secrets(home, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    assert cli.main(["config", "show"]) == 0
    out = capsys.readouterr().out
    assert "canary" not in out
    shown = yaml.safe_load(out)
    assert shown["upstreams"]["openai"]["key"] == "***"
    assert shown["state"] == str(home / ".local/state/tollgate")


def test_a_bad_configuration_is_told_without_a_traceback(home, capsys):
    (home / "tollgate.yaml").write_text("workers: 0")
    assert cli.main(["config", "show"]) == 2
    assert capsys.readouterr().err == (
        "tollgate: tollgate.yaml:1: workers: expected a whole number >= 1 and <= 64, got 0\n"
    )


@pytest.mark.parametrize("command", [["journal", "cat"], ["journal", "verify"], ["ledger", "rebuild"]])
def test_there_must_be_a_journal(home, command, capsys):
    assert cli.main([*command, "--state", "nowhere"]) == 1
    assert capsys.readouterr().err == f"tollgate: {home}/nowhere/journal: No such file or directory\n"


def test_an_empty_journal_makes_an_empty_ledger(home, capsys):
    (home / "state" / "journal").mkdir(parents=True)
    assert cli.main(["ledger", "rebuild", "--state", "state"]) == 0
    assert capsys.readouterr().out == f"{home}/state/ledger.sqlite: 0 records\n"
    assert cli.main(["journal", "verify", "--state", "state", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_a_rebuild_says_which_part_of_the_journal_was_left_out(home, capsys):
    (home / "state" / "journal").mkdir(parents=True)
    (home / "state" / "journal" / "w0-00000001.tgj").write_bytes(b"no segment")
    assert cli.main(["ledger", "rebuild", "--state", "state"]) == 1
    assert capsys.readouterr().out == f"{home}/state/ledger.sqlite: 0 records, 1 damaged and left out\n"


def test_a_ledger_that_knew_more_than_the_journal_is_kept_aside(home, capsys):
    state = home / "state"
    (state / "journal").mkdir(parents=True)
    ledger = Ledger(state / "ledger.sqlite")
    ledger.open()
    ledger.apply([call_record("a"), call_record("b")], {})
    ledger.close()
    before = list(dump(state / "ledger.sqlite"))
    assert cli.main(["ledger", "rebuild", "--state", "state"]) == 0
    aside = state / "ledger.sqlite.aside"
    said = f"2 calls of the old ledger are no longer in the journal; it is kept as {aside}"
    assert capsys.readouterr().out.splitlines()[1] == said
    assert (list(dump(aside)), list(dump(state / "ledger.sqlite"))) == (before, [])


def test_a_rebuild_that_fails_leaves_the_ledger_and_nothing_else(home, capsys, monkeypatch):
    (home / "state" / "journal").mkdir(parents=True)
    assert cli.main(["ledger", "rebuild", "--state", "state"]) == 0
    before = (home / "state" / "ledger.sqlite").read_bytes()

    def full(*_):
        raise LedgerUnavailable("database or disk is full")

    monkeypatch.setattr("gateway.recorder.ledger.Ledger.compact", full)
    assert cli.main(["ledger", "rebuild", "--state", "state"]) == 1
    assert "database or disk is full" in capsys.readouterr().err
    assert (home / "state" / "ledger.sqlite").read_bytes() == before
    assert {path.name for path in (home / "state").iterdir()} == {"journal", "ledger.sqlite", "ledger.sqlite.lock"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["serve"], (None, {})),
        (
            ["serve", "--listen", "127.0.0.1:1", "--admin", "127.0.0.1:2", "--workers", "3", "--state", "s"],
            (None, {"listen": "127.0.0.1:1", "admin": "127.0.0.1:2", "workers": 3, "state": "s"}),
        ),
    ],
)
def test_serve_hands_over_what_was_said(arguments, expected, monkeypatch):
    seen = []
    monkeypatch.setattr("gateway.supervisor.run", lambda path, overrides: seen.append((path, overrides)) or 7)
    assert cli.main(arguments) == 7
    assert seen == [expected]


def test_demo_hands_over_what_was_said(monkeypatch):
    seen = []
    monkeypatch.setattr("gateway.testing.demo.run", lambda **given: seen.append(given) or 0)
    assert cli.main(["demo", "--seconds", "2", "--once", "--listen", "127.0.0.1:0"]) == 0
    assert seen == [{"seconds": 2.0, "stay": False, "overrides": {"listen": "127.0.0.1:0"}}]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ConfigError([Problem(reason="no", source="f")]), 2, "tollgate: f: no"),
        (LedgerUnavailable("in use"), 1, "tollgate: in use"),
        (OSError("plain"), 1, "tollgate: plain"),
        (PermissionError(13, "Permission denied", "/x"), 1, "tollgate: /x: Permission denied"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_how_failures_end(error, status, said, monkeypatch, capsys):
    def fail(*_):
        raise error

    monkeypatch.setattr("gateway.supervisor.run", fail)
    assert cli.main(["serve"]) == status
    assert capsys.readouterr().err.strip() == said


def test_a_bug_is_not_hidden(monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("gateway.supervisor.run", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["serve"])


def test_a_reader_that_leaves_is_no_failure(home):
    with subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", "config", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()  # before anything was written
        error = process.stderr.read()
        assert (process.wait(timeout=30), error) == (0, b"")
