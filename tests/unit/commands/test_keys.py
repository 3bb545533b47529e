"""`tollgate keys` on a state directory of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway import cli
from gateway.commands.keys import NotUnderstood, budget, duration, moment
from gateway.key import KeyBudget
from gateway.policy.keys import Ring, usable
from gateway.stores.secret_file import shared_secret
from gateway.stores.sqlite_keys import SqliteKeyStore

SECOND = 10**9


class Shell:
    """Runs commands; remembers every secret that was printed."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.state = home / "state"
        self._capsys = capsys

    def __call__(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        assert cli.main(["keys", *arguments, "--state", str(self.state)]) == status
        got = self._capsys.readouterr()
        return got.out, got.err

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json")[0])

    def ring(self) -> Ring:
        held = Ring(shared_secret(self.state / "keys.pepper"))
        held.take(SqliteKeyStore(self.state / "keys.sqlite", self.state / "keys.pepper", lambda: 1).listed())
        return held


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USER", "ann")
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, capsys)


def test_create_prints_the_secret_alone_and_once(keys: Shell) -> None:
    out, err = keys("create", "--name", "ci", "--team", "core")
    secret = out.strip()
    assert out.count("\n") == 1
    assert "not shown again" in err
    assert secret[12:] not in err
    found = keys.ring().find(secret.encode())
    assert usable(found, 2).name == "ci"
    listed, _ = keys("list")
    assert listed.splitlines()[1].split()[:4] == ["ci", secret[:12], "core", "active"]
    for text in (listed, keys("list", "--json")[0], keys("disable", "ci")[0]):
        assert secret[12:] not in text
    assert "disabled" in keys("list")[0]


def test_everything_that_can_be_said_of_a_key(keys: Shell) -> None:
    made = keys.json(
        *("create", "--name", "ci", "--model", "gpt-*, fast", "--model", "o3", "--upstream", "openai", "--tool", ""),
        *("--operation", "chat,batches", "--expires", "30d", "--budget", "20/month", "--budget", "5000tok/rolling-day"),
        *("--rpm", "60", "--tpm", "1000", "--concurrency", "3", "--burst", "5", "--no-run-limits", "--meta", "a=b=c"),
    )
    assert made["models"] == ["gpt-*", "fast", "o3"]
    assert made["upstreams"] == ["openai"]
    assert made["tools"] == []
    assert made["operations"] == ["chat", "batches"]
    assert made["budgets"] == ["20 USD per month", "5000 tokens per rolling day"]
    assert made["limits"] == {"rpm": 60, "tpm": 1000, "concurrency": 3, "burst": 5}
    assert made["may_limit_runs"] is False
    assert made["metadata"] == {"a": "b=c"}
    assert made["expires"] > made["created"]
    (listed,) = keys.json("list")
    assert listed == {**made, "secret": None}


def test_without_a_word_a_key_may_do_what_is_metered(keys: Shell) -> None:
    made = keys.json("create")
    assert made["name"] == made["id"]
    assert "chat" in made["operations"]
    assert not {"batches", "other", "*"} & set(made["operations"])


def test_rotate_gives_another_secret(keys: Shell) -> None:
    first = keys("create", "--name", "ci")[0].strip()
    second = keys("rotate", "ci")[0].strip()
    held = keys.ring()
    assert held.find(first.encode()) is None
    assert held.find(second.encode()) is not None
    assert keys.json("rotate", "ci", "--overlap", "1h")["secret"][:12] == first[:12]
    assert keys.ring().find(second.encode()) is not None


def test_who_changed_what_is_kept(keys: Shell) -> None:
    keys("create", "--name", "ci")
    keys("disable", "ci", "--reason", "left")
    store = SqliteKeyStore(keys.state / "keys.sqlite", keys.state / "keys.pepper", lambda: 1)
    assert [(c.kind, c.who, c.reason) for c in store.changes()] == [("disable", "ann", "left"), ("create", "ann", "")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("disable", "nobody"), "there is no key nobody"),
        (("rotate", "nobody"), "there is no key nobody"),
        (("create", "--name", "a b"), "name: letters, digits and"),
        (("create", "--operation", "chta"), "operations: there is no chta; known are batches, chat"),
        (("create", "--budget", "20"), "--budget: expected an amount"),
        (("create", "--meta", "x"), "--meta: expected NAME=TEXT"),
        (("create", "--expires", "soon"), "--expires: expected 30d"),
        (("create", "--expires", "2020-01-01T00:00:00Z"), "expires_at: lies in the past"),
        (("create", "--burst", "5"), "burst: is a number of requests"),
        (("create", "--parent", "nobody"), "there is no key nobody"),
        (("list",), ""),
    ],
)
def test_what_cannot_be_done_is_said(keys: Shell, arguments: tuple[str, ...], said: str) -> None:
    _, err = keys(*arguments, status=1 if said else 0)
    assert said in err
    assert keys.json("list") == []


def test_a_gateway_that_may_not_listen_yet_gets_its_first_key(
    keys: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Off loopback a key is needed to start, so making one must not need a configuration that could start."""
    monkeypatch.setenv("TOLLGATE_LISTEN", "0.0.0.0:8787")
    monkeypatch.setenv("TOLLGATE_STATE", str(keys.state))
    assert cli.main(["check"]) == 2
    keys("create")
    assert cli.main(["check"]) == 0
    capsys.readouterr()


def test_budgets_as_they_are_written() -> None:
    assert budget("20/month") == KeyBudget(usd=20 * SECOND)
    assert budget("0.000000001usd/rolling-hour") == KeyBudget(usd=1, per="hour", rolling=True)
    assert budget("2.5/life") == KeyBudget(usd=2_500_000_000, per="life")
    assert budget("5TOK/Day") == KeyBudget(tokens=5, per="day")
    for wrong in ("20", "20/", "/month", "20/year", "-1/day", "1.5tok/day", "1e3/day", "20 /month", "x/day"):
        with pytest.raises(NotUnderstood):
            budget(wrong)


def test_times_as_they_are_written() -> None:
    assert [duration(text) for text in ("0", "90s", "30m", "12h", "1d", "2w")] == [
        seconds * SECOND for seconds in (0, 90, 1800, 43_200, 86_400, 1_209_600)
    ]
    assert moment("", 5) == 0
    assert moment("1h", 5) == 3600 * SECOND + 5
    assert moment("2027-01-31T00:00:00Z", 5) == moment("2027-01-31", 5) == 1_801_353_600 * SECOND
    for wrong in ("1", "h", "1y", "-1h"):
        with pytest.raises(NotUnderstood):
            duration(wrong)
