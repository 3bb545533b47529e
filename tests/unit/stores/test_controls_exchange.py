"""Machines that tell each other their decisions over one log: they agree in the end, whatever happens on the way."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.controls import Cap, Caps, Decision, Kind, Scope
from gateway.spend import RunLimits
from gateway.stores.controls_exchange import BEGIN, Entry, Exchange
from gateway.stores.sqlite_controls import RUN_DAYS, SqliteControls, SqliteDecisions

NOW = 1_790_000_000 * 10**9
DAY = 86_400 * 10**9


class Log:
    """The log of gateway.stores.redis_controls, in memory."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def read(self, place: str) -> list[Entry]:
        return self.entries[int(place.partition("-")[0]) :]


class Machine:
    def __init__(self, directory: Path, log: Log) -> None:
        self.decisions = SqliteDecisions(directory / "controls.sqlite")
        self.exchange = Exchange(self.decisions)
        self.name = self.exchange.machine()
        self.worker = SqliteControls(self.decisions.path)
        self.log = log
        self.sent = 0

    def tell(self, *, crash: bool = False) -> None:
        """`crash`: what was told and did not come back yet is told again."""
        outgoing = self.exchange.outgoing(NOW, self.sent)
        self.log.entries += outgoing
        if crash:
            self.sent = 0
        elif outgoing:
            self.sent = outgoing[-1].revision

    def read(self) -> int:
        entries = self.log.read(self.exchange.place())
        return self.exchange.take(entries, f"{len(self.log.entries)}-0")

    def state(self) -> tuple[object, ...]:
        self.worker.refresh()
        runs = ("a", "b")
        return (
            dict(self.worker.stops),
            [self.worker.raised(run) for run in runs],
            [self.worker.limits(run) for run in runs],
            self.worker.caps,
        )


def kill(value: str = "a") -> Decision:
    return Decision(Kind.KILL, Scope.RUN, value, reason="x", who="ops", at=NOW)


def test_a_kill_on_one_machine_holds_on_the_other(tmp_path: Path) -> None:
    log = Log()
    left, right = Machine(tmp_path / "1", log), Machine(tmp_path / "2", log)
    assert left.name != right.name == right.exchange.machine()
    left.decisions.record(kill())
    left.tell()
    assert (right.read(), left.read()) == (1, 1)
    assert ("run", "a") in right.worker.stops or right.worker.refresh()
    assert left.state() == right.state()
    assert right.decisions.decisions() == left.decisions.decisions() == [kill()]
    assert right.exchange.outgoing(NOW) == []  # it is not its own
    assert (right.read(), left.read()) == (0, 0)


def test_who_comes_later_learns_everything(tmp_path: Path) -> None:
    log = Log()
    left = Machine(tmp_path / "1", log)
    left.decisions.record(kill())
    left.decisions.record(Decision(Kind.LIMIT, Scope.RUN, "b", at=NOW, limits=RunLimits(calls=3)))
    left.tell()
    late = Machine(tmp_path / "2", log)
    assert late.exchange.place() == BEGIN
    assert late.read() == 2
    assert late.state() == left.state()


def test_a_log_that_is_lost_is_told_again(tmp_path: Path) -> None:
    log = Log()
    left, right = Machine(tmp_path / "1", log), Machine(tmp_path / "2", log)
    left.decisions.record(kill())
    old = Decision(Kind.KILL, Scope.RUN, "old", at=NOW - (RUN_DAYS + 1) * DAY)
    left.decisions.record(old)
    cap = Decision(Kind.CAP, Scope.TEAM, "t", at=old.at, caps=Caps(rpm=5))  # holds for as long as nobody takes it away
    left.decisions.record(cap)
    left.tell()
    left.read()
    right.read()
    kept = [entry for entry in log.entries if entry.decision in (kill(), cap)]
    log.entries.clear()
    left.exchange.tell_again()
    left.sent = 0
    left.tell()
    assert log.entries == kept
    third = Machine(tmp_path / "3", log)
    assert third.read() == 2
    assert third.state()[-1] == {("team", "t"): Caps(rpm=5)}
    right.exchange.take(log.entries, "2-0")
    assert len(right.decisions.decisions()) == 2


decisions = st.builds(
    Decision,
    kind=st.sampled_from(Kind),
    scope=st.just(Scope.RUN),
    value=st.sampled_from(["a", "b"]),
    amount=st.integers(1, 9),
    reason=st.sampled_from(["x", "y"]),
    at=st.just(NOW),
    limits=st.one_of(st.none(), st.builds(RunLimits, calls=st.integers(1, 9))),
    caps=st.one_of(st.none(), st.builds(Caps, budgets=st.just((Cap(usd=5),)), rpm=st.integers(1, 9))),
)
steps = st.one_of(
    st.tuples(st.just("decide"), st.integers(0, 2), decisions),
    st.tuples(st.sampled_from(["tell", "crash", "read"]), st.integers(0, 2), st.none()),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(steps, max_size=25))
def test_all_machines_agree_once_they_have_read(made: list[tuple[str, int, Decision | None]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        log = Log()
        machines = [Machine(Path(directory) / str(number), log) for number in range(3)]
        for what, number, decision in made:
            machine = machines[number]
            if decision is not None:
                machine.decisions.record(decision)
            elif what == "read":
                machine.read()
            else:
                machine.tell(crash=what == "crash")
        for machine in machines:
            machine.tell()
        for machine in machines:
            machine.read()
        states = [machine.state() for machine in machines]
        assert states[0] == states[1] == states[2]
        taken = sum(decision is not None for _, _, decision in made)
        assert all(len(machine.decisions.decisions()) == taken for machine in machines)
        for machine in machines:
            machine.worker.close()
