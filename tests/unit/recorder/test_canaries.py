"""The judge of canaries: fed by records, kept over restarts, final in what it decides."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from gateway.call import Outcome, ToolCall
from gateway.config.schema import Config
from gateway.config.schema_routing import CanaryTo, Route
from gateway.journal.convert import sparse
from gateway.journal.record import AttemptRecord, CallRecord, OutcomeRecord
from gateway.policy.canary import Decision, Memory, Plan, State, canary_arm
from gateway.recorder.canaries import CanaryJudge, plans_of, seen
from gateway.stores.sqlite_canaries import CanariesUnusable, SqliteCanaries, WatchedCanaries

ATTEMPT = AttemptRecord("up", "", "host", 1, 0, 1, 200, False)


def record(run: str, arm: str, outcome: Outcome = Outcome.OK, **more: Any) -> CallRecord:
    known = {"run_id": run, "notes": {"canary": "c", "canary_arm": arm}, "attempts": (ATTEMPT,), "status": 200}
    return sparse(f"call-{run}", 1, outcome, **{**known, **more})


def stream(count: int, bad: float, seed: int = 1, begin: int = 0) -> list[CallRecord]:
    draw = random.Random(seed)
    found = []
    for number in range(begin, begin + count):
        of_canary = canary_arm("c", f"r{number}", 0.2)
        failed = of_canary and draw.random() < bad
        outcome = Outcome.UPSTREAM_ERROR if failed else Outcome.OK
        found.append(record(f"r{number}", "canary" if of_canary else "rest", outcome, status=500 if failed else 200))
    return found


@dataclasses.dataclass
class Bench:
    store: SqliteCanaries
    told: list[Decision] = dataclasses.field(default_factory=list)
    failures: list[str] = dataclasses.field(default_factory=list)

    def judge(self, memories: Mapping[str, Memory] | None = None, plan: Plan | None = None) -> CanaryJudge:
        def failed(text: str, name: str, error: OSError) -> None:
            self.failures.append(text % (name, error))

        memories = self.store.load() if memories is None else memories
        judge = CanaryJudge(self.store, memories, self.told.append, lambda: 7, failed)
        judge.configure([plan or Plan("c", 0.2, least_runs=10**9)])
        return judge


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(SqliteCanaries(tmp_path / "canaries.sqlite"))


def test_a_bad_canary_is_told_of_once_and_workers_see_it(bench: Bench) -> None:
    watched = WatchedCanaries(bench.store.path)
    judge = bench.judge()
    judge.apply(stream(2000, 0.3))
    (decision,) = bench.told
    assert decision.state is State.ROLLED_BACK
    assert watched.refresh()
    assert watched.ended == {"c": State.ROLLED_BACK}
    assert not watched.refresh()
    judge.apply(stream(500, 0.3, begin=5000))
    assert len(bench.told) == 1
    facts = decision.facts()
    assert (facts["canary"], facts["error"]) == ("c", decision.counts["error"][0])
    watched.close()


def test_a_restart_loses_nothing_and_repeats_nothing(bench: Bench, tmp_path: Path) -> None:
    """Stopped in the middle, kept, and begun again: the same decision at the same call as without."""
    calls = stream(3000, 0.1)
    whole = Bench(SqliteCanaries(tmp_path / "other.sqlite"))
    whole.judge().apply(calls)
    judge = bench.judge()
    judge.apply(calls[:60])
    assert not bench.told
    judge.keep({"seg": 60})
    again = bench.judge()
    assert bench.store.reached == {"seg": 60}
    again.apply(calls[60:])
    assert bench.told == whole.told
    assert whole.told


def test_a_decision_stands_whatever_is_read_again(bench: Bench) -> None:
    judge = bench.judge()
    judge.keep({"seg": 1})
    judge.apply(stream(2000, 0.3))
    assert len(bench.told) == 1  # and killed before it could keep what it had read
    again = bench.judge()
    again.apply(stream(2000, 0.3))
    again.keep({"seg": 9})
    ((standing, _),) = bench.store.standings()
    assert standing.state is State.ROLLED_BACK
    assert len(bench.told) == 1


def test_what_is_configured_anew_is_not_forgotten(bench: Bench) -> None:
    judge = bench.judge()
    judge.apply(stream(100, 0.0))
    judge.configure([])
    judge.apply(stream(100, 0.0, begin=100))  # not watched now
    judge.configure([Plan("c", 0.2, least_runs=10**9)])
    judge.keep({})
    ((standing, _),) = bench.store.standings()
    assert sum(standing.runs) == 100


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({}, False),
        ({"outcome": Outcome.UPSTREAM_ERROR, "status": 500}, True),
        ({"outcome": Outcome.UPSTREAM_ERROR, "status": 429}, True),
        ({"outcome": Outcome.UPSTREAM_ERROR, "status": 404}, True),
        ({"outcome": Outcome.UPSTREAM_ERROR, "status": 400}, False),  # of the caller's making
        ({"outcome": Outcome.FAILED, "status": 502}, True),
        ({"outcome": Outcome.TRUNCATED}, True),
        ({"outcome": Outcome.CANCELLED}, False),
    ],
)
def test_what_is_a_failure(more: dict[str, Any], error: bool) -> None:
    assert seen(record("r", "canary", **more)).error is error


@pytest.mark.parametrize(
    ("first", "error"),
    [
        ({"status": 500}, True),
        ({"status": 0, "error_code": "reset"}, True),
        ({"status": 200}, False),
        ({"status": 400}, False),
    ],
)
def test_another_attempt_does_not_hide_that_the_first_failed(first: dict[str, Any], error: bool) -> None:
    attempts = (structs.replace(ATTEMPT, **first), ATTEMPT)
    assert seen(record("r", "canary", attempts=attempts)).error is error


def test_what_a_record_shows() -> None:
    tool = ToolCall("t", "f", 0, 0, is_error=True)
    found = seen(record("r", "rest", ttft_ns=5, cost=9, tools=(tool,)))
    assert (found.run, found.canary, found.latency, found.cost, found.tool_error) == ("r", False, 5, 9, True)
    assert seen(record("", "canary")).run == "call-"
    assert seen(record("r", "canary", Outcome.FAILED, ttft_ns=5)).latency == -1


def test_what_never_reached_the_target_says_nothing(bench: Bench) -> None:
    judge = bench.judge()
    judge.apply([record("r", "canary", attempts=()), sparse("x", 1, Outcome.OK)])
    judge.keep({})
    ((standing, _),) = bench.store.standings()
    assert standing.runs == (0, 0)


def test_a_reported_failure_of_a_run_counts(bench: Bench) -> None:
    judge = bench.judge()
    judge.apply([record("r", "canary"), OutcomeRecord("o", 1, "r", "failure"), OutcomeRecord("o", 1, "x", "failure")])
    judge.keep({})
    ((standing, _),) = bench.store.standings()
    assert standing.counts["outcome"] == (1, 0)


def test_a_file_that_cannot_be_written_is_told_and_the_decision_stands(bench: Bench) -> None:
    bench.store.path.mkdir()
    judge = bench.judge({})
    judge.apply(stream(2000, 0.3))
    judge.keep({})
    assert len(bench.told) == 1
    assert len(bench.failures) == 2
    with pytest.raises(CanariesUnusable):
        bench.store.standings()


def test_without_canaries_no_file_is_made(bench: Bench) -> None:
    judge = bench.judge()
    judge.configure([])
    judge.apply(stream(10, 0.0))
    judge.keep({"seg": 1})
    assert not bench.store.path.exists()
    assert bench.store.standings() == []


def test_the_plans_of_a_configuration() -> None:
    config = Config(routes=(Route(to=("a",)), Route(to=("a",), canary=CanaryTo(id="c", to="b", share=0.2))))
    assert plans_of(config) == [Plan("c", 0.2)]


def test_being_overtaken_by_a_hedge_says_nothing() -> None:
    lost = AttemptRecord("openai", "openai", "a", 443, 0, 5, 0, False, "overtaken")
    won = AttemptRecord("azure", "azure", "b", 443, 3, 5, 200, False)
    failed = AttemptRecord("openai", "openai", "a", 443, 0, 5, 503, False)
    assert not seen(record("r", "canary", attempts=(lost, won))).error
    assert seen(record("r", "canary", attempts=(lost, failed, won))).error
