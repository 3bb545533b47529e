"""`tollgate runs` without a gateway, and what it prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import cli
from gateway.commands.runs import table
from gateway.policy.controls import Kind
from gateway.recorder.ledger import Ledger
from gateway.stores.sqlite_controls import SqliteControls, SqliteDecisions
from gateway.testing.records import START, call_record


def decisions(options: list[str]) -> SqliteDecisions:
    return SqliteDecisions(Path(options[1]) / "controls.sqlite")


@pytest.mark.parametrize(
    ("words", "subject"),
    [
        (["r1"], ("run", "r1")),
        (["--agent", "bot"], ("agent", "bot")),
        (["--key-id", "k1"], ("key", "k1")),
        (["--key", "k1"], ("key", "k1")),
        (["--team", "t"], ("team", "t")),
    ],
)
def test_a_kill_is_written_into_the_state_directory(
    options: list[str], words: list[str], subject: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["runs", "kill", *words, "--reason", "it loops", *options]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{subject[0]} {subject[1]} stopped; no gateway answers at 127.0.0.1:")
    worker = SqliteControls(Path(options[1]) / "controls.sqlite")
    assert "it loops" in worker.stops[subject]
    assert cli.main(["runs", "resume", *words, *options]) == 0
    assert worker.refresh()
    assert not worker.stops


def test_a_budget_is_raised(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", "raise", "r1", "2.5", *options]) == 0
    assert capsys.readouterr().out.startswith("run r1 has a budget of $2.5000; ")
    (decision,) = decisions(options).decisions()
    assert (decision.kind, decision.amount) == (Kind.RAISE, 2_500_000_000)


@pytest.mark.parametrize(
    "words",
    [
        ["kill"],
        ["kill", "r1", "--agent", "bot"],
        ["raise", "r1"],
        ["raise", "r1", "0"],
        ["raise", "r1", "nan"],
        ["list", "--limit", "0"],
        ["outcome", "r1"],
        ["outcome", "r1", "good"],
        ["outcome", "r1", "nan"],
    ],
)
def test_a_wrong_command_line_ends_with_2(options: list[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["runs", *words, *options])
    assert ended.value.code == 2
    assert not decisions(options).path.exists()


def test_an_outcome_needs_a_gateway(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", "outcome", "r1", "success", *options]) == 1
    assert "no gateway answers at 127.0.0.1:" in capsys.readouterr().err


def test_runs_are_listed_from_disk(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", "list", *options]) == 0
    assert capsys.readouterr().out == "RUN  AGENT  BEGAN  CALLS  COST  STATE\n"
    ledger = Ledger(Path(options[1]) / "ledger.sqlite")
    ledger.open()
    ledger.apply(
        [call_record("c1", START), call_record("c2", START + 5, run_id="r2", cost=None, cost_status="no_price")], {}
    )
    ledger.close()
    cli.main(["runs", "kill", "run-1", *options])
    cli.main(["runs", "kill", "--agent", "bot", "--reason", "x", *options])
    capsys.readouterr()
    assert cli.main(["runs", "list", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["RUN", "AGENT", "BEGAN", "CALLS", "COST", "STATE"]
    assert lines[1].split()[0] == "r2"
    assert "unknown" in lines[1]
    assert lines[2].startswith("run-1 ")
    assert lines[2].endswith("stopped")
    assert lines[3] == "stopped: agent bot (x)"


def test_a_table_without_rows_has_its_heads() -> None:
    assert table([], [("run", "r9", None)]).splitlines()[1] == "stopped: run r9"


@pytest.mark.parametrize(
    ("spent", "shown"), [(None, "unknown"), (0.0, "$0.0000"), (0.00000495, "< $0.0001"), (0.00005, "$0.0001")]
)
def test_little_is_not_shown_as_nothing(spent: float | None, shown: str) -> None:
    row = table([("r1", "bot", "2026-11-28T10:00:00", 1, spent)], []).splitlines()[1]
    assert row == f"r1   bot    2026-11-28T10:00:00  1      {shown}"


@pytest.mark.parametrize("words", [[], ["--"], ["--budget", "2", "--"]])
def test_run_needs_a_command(options: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", *options, *words]) == 2
    assert "which command?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--budget", "-1"], ["--max-calls", "0"], ["--name", "a/b"], ["--max-minutes", "x"]])
def test_limits_that_make_no_sense(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", *words, "--", "true"])
    assert ended.value.code == 2
