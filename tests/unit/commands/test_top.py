"""`tollgate top`: what keys do, what is drawn, and that nothing of a client reaches the terminal but text."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from gateway import cli
from gateway.commands import top
from gateway.commands.client import Refused
from gateway.commands.top_keys import DOWN, END, ESCAPE, HOME, UP, Do, Screen, chosen, press, read
from gateway.commands.top_view import Snapshot, draw, plain, spark, usd

RUNS = ["a", "b", "c"]
SPENT = {"cost_usd": 0.25, "projected_usd": 1.5, "since": "2026-11-27T00:00:00.000000Z"}
SUMMARY: dict[str, Any] = {
    **{"version": "1.2", "at": "2026-11-27T10:20:30.000000Z", "workers": 2, "workers_ready": 1, "inflight": 3},
    **{"hour": SPENT, "day": {**SPENT, "cost_usd": 12.5}, "month": {**SPENT, "cost_usd": None, "projected_usd": None}},
    **{"calls_per_second": 1.25, "last_hour": {"faults": 7, "refused": 2}, "conditions": []},
    **{"slo": {"availability": 0.981, "burns": [{"firing": True}]}, "minutes": {"cost_usd": [0.0] * 58 + [0.5, 1.0]}},
}


def run(id: str, cost: float | None = 0.5, **facts: Any) -> dict[str, Any]:
    usage = {"input_tokens": 20_000, "output_tokens": 500}
    plain_run = {"agent": "bot", "tenant": "core", "calls": 4, "errors": 0, "tool_calls": 2, "usage": usage}
    return {"id": id, **plain_run, "cost_usd": cost, "outcome": None, **facts}


def budget(spent: float, limit: float = 10, **facts: Any) -> dict[str, Any]:
    of = {"scope": "team", "value": "core", "unit": "usd", "per": "day", "rule": "total"}
    return {**of, "spent": spent, "reserved": 0, "limit": limit, **facts}


BREAKER = {"name": "openai", "state": "open", "forced": None, "why": "5 failures in a row"}


def drawn(found: Snapshot, screen: Screen | None = None, width: int = 120, height: int = 40) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=True, color_system="truecolor")
    console.print(draw(found, screen or Screen(), "127.0.0.1:8788", width, height))
    return out.getvalue()


def text(found: Snapshot, screen: Screen | None = None, width: int = 120, height: int = 40) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, color_system=None)
    console.print(draw(found, screen or Screen(), "127.0.0.1:8788", width, height))
    return out.getvalue().splitlines()


# -- keys ---------------------------------------------------------------------------------------------------------


def test_keys_are_told_apart() -> None:
    assert read(b"q") == ["q"]
    assert read(b"\x1b[A\x1b[Bk\x1bOH\x1b[4~") == [UP, DOWN, "k", HOME, END]
    assert read(b"\x1b") == [ESCAPE]
    assert read(b"\x1b[1;5Cx\x1b[99") == ["x"], "what is not known does nothing"
    assert read(b"") == []


def test_the_mark_moves_and_stays_on_its_run() -> None:
    screen, _ = press(Screen(), DOWN, RUNS)
    assert chosen(screen, RUNS) == "b"
    assert chosen(screen, ["c", "b", "a"]) == "b", "wherever it is now"
    assert chosen(screen, ["x", "y"]) == "x", "it is gone"
    assert chosen(press(screen, END, RUNS)[0], RUNS) == "c"
    assert chosen(press(screen, UP, RUNS)[0], RUNS) == "a"
    assert chosen(press(press(screen, HOME, RUNS)[0], UP, RUNS)[0], RUNS) == "a", "and no further"
    assert press(Screen(), DOWN, [])[0] == Screen()
    assert press(Screen(), "k", []) == (Screen(), None)


def test_a_run_is_stopped_only_after_a_yes() -> None:
    asked, done = press(press(Screen(), DOWN, RUNS)[0], "k", RUNS)
    assert (asked.asking, done) == ("b", None)
    screen, done = press(asked, "y", ["another", *RUNS])
    assert (screen.asking, done) == ("", Do("kill", "b")), "the run that was asked about"
    for key in ("n", ESCAPE, "q", "k", DOWN, " "):
        screen, done = press(asked, key, RUNS)
        assert (screen.asking, done, screen.note) == ("", None, "not stopped")


def test_the_other_keys() -> None:
    assert press(Screen(), "q", RUNS)[1] == Do("quit")
    assert press(Screen(), "r", RUNS)[1] == Do("resume", "a")
    assert press(Screen(), "o", RUNS)[0].by_cost is False
    assert press(Screen(paused=True), "p", RUNS)[0].paused is False
    assert press(Screen(note="done"), "z", RUNS) == (Screen(), None)


# -- what is drawn ------------------------------------------------------------------------------------------------


def test_all_of_it_is_there() -> None:
    conditions = [{"severity": "critical", "subject": "openai", "text": "Open: 5 failures.", "kind": "breaker_open"}]
    found = Snapshot(
        summary={**SUMMARY, "conditions": conditions},
        runs=[run("run-1", errors=3), run("run-2", None, outcome={"outcome": "success"})],
        budgets=[budget(9), budget(1, value=None, scope="global", unit="tokens", limit=2_000_000)],
        breakers=[BREAKER, {**BREAKER, "name": "x", "state": "closed", "forced": "open", "why": None}],
        stopped=frozenset({"run-1"}),
    )
    lines = text(found)
    whole = "\n".join(lines)
    for wanted in (
        "this hour $0.2500",
        "today $12.5000",
        "this month unknown",
        "1 of 2 workers",
        "98.10%",
        "calls/s 1.25",
    ):
        assert wanted in whole
    assert any(all(part in line for part in ("run-1", "bot", "stopped", "$0.5000", "20.5k")) for line in lines)
    assert any(all(part in line for part in ("run-2", "unknown", "success")) for line in lines)
    assert any(all(part in line for part in ("team core", "day", "90%", "$10.0000")) for line in lines)
    assert any("closed, held open" in line for line in lines)
    assert any(line.startswith("critical") and "Open: 5 failures." in line for line in lines)
    assert "no runs yet" in "\n".join(text(Snapshot(summary=SUMMARY)))


@pytest.mark.parametrize(
    ("width", "height"),
    [(80, 24), (100, 30), (200, 60), (120, 25), (60, 20), (40, 13), (80, 10), (30, 6), (20, 4), (9, 2)],
)
def test_it_fits_the_screen_and_the_mark_is_in_sight(width: int, height: int) -> None:
    found = Snapshot(
        summary={**SUMMARY, "conditions": [{"severity": "info", "subject": "s" * 99, "text": "t" * 300}] * 9},
        runs=[run(f"run-{n}") for n in range(100)],
        budgets=[budget(n) for n in range(9)],
        breakers=[BREAKER] * 2,
    )
    lines = text(found, Screen(run="run-77"), width, height)
    assert all(len(line) <= width for line in lines)
    assert len(lines) <= height
    assert lines[0].startswith("Tollgate")
    assert lines[-1].startswith("q quit")
    assert any("run-77" in line for line in lines) == (height >= 10)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_what_is_asked_can_be_read_in_any_window(width: int) -> None:
    found = Snapshot(summary=SUMMARY, runs=[run("r" * 99)], budgets=[budget(9)] * 9, breakers=[BREAKER] * 9)
    asked = text(found, Screen(asking="r" * 99), width, 12)[-1]
    assert asked.startswith("stop run rrrr")
    assert asked.endswith("y / n")


def test_where_there_is_little_room_breakers_that_are_open_come_first() -> None:
    breakers = [*({**BREAKER, "name": f"well-{n}", "state": "closed"} for n in range(9)), {**BREAKER, "name": "ill"}]
    assert any(line.startswith("ill ") for line in text(Snapshot(summary=SUMMARY, breakers=breakers), height=20))


def test_80_columns_are_enough_to_tell_runs_and_agents_apart() -> None:
    id, agent = "f0e1d2c3-b4a5", "support-bot"
    lines = text(Snapshot(summary=SUMMARY, runs=[run(id, 4e-6, agent=agent)]), width=80)
    assert any(all(part in line for part in (id, agent, "<$0.00001")) for line in lines)
    assert any(line.startswith("calls/s") and line.endswith("refused 2") for line in lines)


def test_what_asks_is_said_and_what_is_old_too() -> None:
    assert (
        "stop run run-1 and its calls under way?  y / n" in text(Snapshot(summary=SUMMARY), Screen(asking="run-1"))[-1]
    )
    assert "no gateway answers" in text(Snapshot(summary=SUMMARY, fault="no gateway answers"))[0]


def test_nothing_of_a_client_is_a_command_to_the_terminal() -> None:
    evil = "\x1b]0;owned\x07\x1b[2J[bold red]x[/]\r\n\u202e\x9b5m"
    found = Snapshot(
        summary={**SUMMARY, "conditions": [{"severity": "info", "subject": evil, "text": evil}]},
        runs=[run(evil, agent=evil, tenant=evil, outcome={"outcome": evil})],
        budgets=[budget(1, value=evil)],
        breakers=[{**BREAKER, "name": evil, "why": evil}],
    )
    shown = drawn(found, Screen(asking=evil)) + drawn(found, Screen(note=evil))
    for part in ("\x1b]", "\x1b[2J", "\x07", "\x9b", "\u202e", "\r"):
        assert part not in shown
    assert "[bold red]" in shown, "markup is text"


def test_small_things() -> None:
    assert (usd(None), usd(0), usd(0.00002), usd(0.5), usd(1234.5)) == (
        "unknown",
        "$0.00",
        "$0.00002",
        "$0.5000",
        "$1,234.50",
    )
    assert spark([0, 1, 8]) == " ▁█"
    assert spark([0, 0]) == "▁▁"
    assert spark([]) == ""
    assert spark([0.001, 100])[0] == "▁", "what is not zero is seen"
    assert plain("abcdef", 4) == "abc…"


# -- the command --------------------------------------------------------------------------------------------------


class Admin:
    """Answers as a gateway does."""

    address = "127.0.0.1:8788"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refuses = False

    def ask(self, method: str, path: str, body: object = None) -> Any:
        self.asked.append(path)
        if path.startswith("/api/budgets") and self.refuses:
            raise Refused(503, "Redis is away")
        lists = {"runs": [run("run-1")], "breakers": [BREAKER], "stopped": [{"scope": "run", "value": "run-1"}]}
        rate = budget(1, rule="rate")
        of_team = [budget(1), budget(9, value="b"), rate] if "scope=team" in path else []
        return {"/api/summary": SUMMARY}.get(path, {**lists, "budgets": of_team})


def test_a_look_asks_for_what_is_shown() -> None:
    admin = Admin()
    found = top.look(admin, Screen())  # type: ignore[arg-type]
    assert [one["value"] for one in found.budgets] == ["b", "core"], "the fullest first; rates are none"
    assert found.stopped == {"run-1"}
    assert any("order=cost&since=2026-11-27T00%3A00" in path for path in admin.asked)
    admin.refuses = True
    assert top.look(admin, Screen(by_cost=False)).budgets == []  # type: ignore[arg-type]
    assert any("order=recent" in path for path in admin.asked)


def test_without_a_terminal_it_prints_one_look(
    options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top, "admin_of", lambda config: Admin())
    assert cli.main(["top", *options]) == 0
    assert "run-1" in capsys.readouterr().out
    assert cli.main(["top", "--once", *options]) == 0


def test_without_a_gateway_it_says_so(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["top", *options]) == 1
    assert "no gateway answers" in capsys.readouterr().err
