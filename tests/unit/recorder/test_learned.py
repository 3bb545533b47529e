"""What the recorder learns of targets: from records and reports, over restarts, from a file, per scope."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.call import Outcome, ToolCall, ToolUse, Usage
from gateway.config.schema import Config, Upstream
from gateway.config.schema_routing import Cascade, Learn, Route, RouteTo
from gateway.journal.convert import sparse
from gateway.journal.record import AttemptRecord, CallRecord, OutcomeRecord
from gateway.policy.selection import ENOUGH, Model
from gateway.policy.selection_features import features
from gateway.policy.selection_rules import terms_of
from gateway.policy.selection_standing import ScopeStanding
from gateway.policy.selection_watch import PATIENCE
from gateway.policy.selection_wire import encode
from gateway.prices.catalogue import ensure_compiled
from gateway.prices.load import load as load_prices
from gateway.recorder import learned, routing_gauges
from gateway.recorder.beside import Beside
from gateway.recorder.learned import LearnedDesk
from gateway.recorder.learned_scope import Scope
from gateway.stores.sqlite_learned import LearnedUnusable, SqliteLearned, WatchedLearned

SECOND = 10**9
BEGIN = 1_790_000_000 * SECOND
DEAR, CHEAP = "gpt-4o", "gpt-4o-mini"
PRICES = load_prices(ensure_compiled(Path("/nonexistent")))
NOUNS = [f"thing{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(40)]


def rule(**learn: Any) -> Route:
    return Route(to=(DEAR, CHEAP), by="learned", learn=Learn(id="s", **learn))


def attempt(model: str) -> AttemptRecord:
    return AttemptRecord("openai", "openai", "host", 1, 0, 1, 200, False, model=model)


def record(id: str, model: str, text: str, at: int = 0, **more: Any) -> CallRecord:
    notes = {
        "learn": "s",
        "learn_arm": model,
        "route_why": "learned",
        "route_to": f"openai/{model}",
        **more.pop("notes", {}),
    }
    known = {
        "run_id": f"run-{id}",
        "notes": notes,
        "attempts": (attempt(model),),
        "status": 200,
        "seen": encode(features(text)),
        "usage": Usage(400, 100),
        "request_bytes": len(text),
    }
    return sparse(id, BEGIN + at, more.pop("outcome", Outcome.OK), **{**known, "duration_ns": 0, **more})


def report(run: str, kind: str, value: float | None = None) -> OutcomeRecord:
    return OutcomeRecord(f"out-{run}", BEGIN, run, kind, value)


class Bench:
    """A desk whose clock stands, and which does everything at once."""

    def __init__(self, place: Path, *rules: Route) -> None:
        self.store = SqliteLearned(place / "learned.sqlite")
        self.now = BEGIN
        place.mkdir(exist_ok=True)
        self.waiting: list[Callable[[], None]] = []
        self.desk = LearnedDesk(self.store, lambda: PRICES, lambda: self.now, self.waiting.append, lambda work: work())
        self.configure(*(rules or (rule(),)))

    def configure(self, *rules: Route) -> None:
        upstream = Upstream(dialect="openai", url="https://api.openai.com", provider="openai")
        self.desk.configure(Config(routes=rules, upstreams={"openai": upstream}))
        self.run()

    def run(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()

    def apply(self, *records: CallRecord | OutcomeRecord) -> None:
        self.desk.apply(records)
        self.run()

    def keep(self) -> None:
        self.desk.keep({"seg": 7})
        self.run()

    def standing(self, scope: str = "s") -> ScopeStanding:
        self.keep()
        (found,) = [one for one, _ in self.store.standings() if one.scope == scope]
        return found

    def serve(self, count: int, seed: int = 1, gap: int = 1) -> None:
        """Both models in turn; the cheap one cannot prove anything."""
        draw = random.Random(seed)
        for number in range(count):
            hard = draw.random() < 0.5
            text = f"{'prove and derive' if hard else 'name and describe'} the {draw.choice(NOUNS)}"
            model = (DEAR, CHEAP)[number % 2]
            id = f"{seed}-{number}"
            good = "failure" if hard and model == CHEAP else "success"
            self.apply(record(id, model, text, number * gap * SECOND), report(f"run-{id}", good))


def model_of(place: Path) -> Model:
    watched = WatchedLearned(place / "learned.sqlite")
    watched.close()
    return watched.models["s"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


def test_it_learns_from_reports_and_claims_nothing_before_there_are_enough(place: Path) -> None:
    bench = Bench(place)
    assert bench.standing().labels == 0
    bench.serve(ENOUGH - 1)
    found = bench.standing()
    assert (found.labels, found.ready, found.weight, found.quality, found.cost) == (499, False, None, None, None)
    bench.serve(141, seed=2)
    found = bench.standing()
    assert (found.labels, found.ready, found.best) == (640, True, DEAR)
    assert found.quality is not None
    assert found.quality > 0.96
    assert found.cost is not None
    assert found.cost < 0.7
    dear, cheap = found.arms
    assert dear.cost is not None
    assert cheap.cost is not None
    assert dear.cost > 10 * cheap.cost
    assert (dear.calls, dear.labels) == (321, 321)
    assert dear.score == 1.0
    assert found.why == {"learned": 640}
    model = model_of(place)
    for text, arm in (("prove and derive the thingaa", DEAR), ("name and describe the thingaa", CHEAP)):
        assert model.choose(features(text), (DEAR, CHEAP), 0.5).arm == arm


def test_what_was_learned_outlives_a_restart(place: Path) -> None:
    bench = Bench(place)
    bench.serve(520)
    bench.apply(record("open", CHEAP, "name the last"))
    before = bench.standing()
    again = Bench(place)
    assert again.desk.reached == {"seg": 7}
    after = again.standing()
    assert (after.labels, after.ready, [arm.labels for arm in after.arms]) == (
        before.labels,
        True,
        [arm.labels for arm in before.arms],
    )
    assert after.weight is not None
    again.apply(report("run-open", "failure"))  # of a call before the restart
    assert again.standing().labels == before.labels + 1
    again.apply(report("run-1-0", "failure"))  # amends what was reported before
    assert again.standing().labels == before.labels + 1
    assert again.standing().arms[0].score < 1


def test_what_says_nothing_of_a_model_is_no_label(place: Path) -> None:
    bench = Bench(place)
    refused = record("refused", DEAR, "x", attempts=())
    failed = record("failed", DEAR, "x", outcome=Outcome.UPSTREAM_ERROR)
    hedged = record("hedged", DEAR, "x", attempts=(attempt("gpt-4.1"), attempt(DEAR)))  # its own target was quicker
    elsewhere = record("rescued", DEAR, "x", attempts=(attempt(DEAR), attempt("gpt-4.1")))
    unknown = record("unknown", "o3", "x")
    other = record("other", DEAR, "x", notes={"learn": "another"})
    bench.apply(refused, failed, elsewhere, unknown, other, sparse("plain", BEGIN, Outcome.OK))
    bench.apply(*[report(f"run-{id}", "success") for id in ("refused", "failed", "rescued", "unknown", "other")])
    assert bench.standing().labels == 0
    bench.apply(hedged, report("run-hedged", "success"))
    assert bench.standing().labels == 1
    bench = Bench(place / "new")
    bench.apply(record("good", DEAR, "x"), report("run-good", "score", 0.25), report("run-none", "score", float("nan")))
    assert bench.standing().arms[0].score == 0.25
    broken = record("broken", DEAR, "x", seen=b"?")
    bench.apply(broken, report("run-broken", "success"))
    assert bench.standing().labels == 1


def test_signs_are_labels_of_less_weight(place: Path) -> None:
    bench = Bench(place)
    bench.apply(
        record("invalid", CHEAP, "a", notes={"learn_valid": "no"}),
        record("tools", CHEAP, "b", tool_uses=(ToolUse("t", "f"),), run_id="q"),
        record("next", CHEAP, "bb", tools=(ToolCall("t", "f", 0, 0, is_error=True),), run_id="q", at=SECOND),
    )
    bench.now = BEGIN + PATIENCE + 5 * SECOND
    found = bench.standing()
    assert found.arms[1].labels == pytest.approx(0.8 + 0.3)
    assert found.arms[1].score == 0


def test_a_shadow_run_is_held_against_what_the_first_target_said(place: Path) -> None:
    bench = Bench(place)

    def shadow(id: str, agreed: str | None) -> CallRecord:
        notes = {"route_why": "shadow"} | ({"learn_agreed": agreed} if agreed else {})
        return record(id, CHEAP, f"text {id}", run_id="shared", notes=notes)

    bench.apply(*[shadow(f"y{n}", "yes") for n in range(3)], shadow("n", "no"), shadow("u", None))
    bench.apply(report("shared", "failure"))  # of the run in which the other answer was given: no business of theirs
    first, cheap = bench.standing().arms
    assert (first.labels, first.score, cheap.labels, cheap.score) == (4, 1.0, 4, 0.75)
    again = Bench(place).standing()
    assert (again.arms[0].labels, again.arms[1].labels, again.labels) == (4, 4, 4)


def test_who_agrees_with_a_target_is_as_good_as_that_is_known_to_be(place: Path) -> None:
    bench = Bench(place)
    for number in range(40):
        bench.apply(record(f"c{number}", DEAR, "x"), report(f"run-c{number}", "success" if number % 2 else "failure"))
    bench.apply(record("s", CHEAP, "x", notes={"route_why": "shadow", "learn_agreed": "yes"}))
    first, cheap = bench.standing().arms
    assert (first.labels, first.score, cheap.labels, cheap.score) == (40, 0.5, 1, 0.5)


def test_a_labelled_file_is_begun_with(place: Path) -> None:
    file, draw = place / "labels.jsonl", random.Random(4)
    lines = []
    for number in range(700):
        hard = number % 2 == 0
        prompt = f"{'prove and derive' if hard else 'name and describe'} the {draw.choice(NOUNS)}"
        lines.append(json.dumps({"prompt": prompt, "scores": {DEAR: 1, CHEAP: 0 if hard else 1, "o3": 1}}))
    file.write_text("\n".join([*lines, ""]))
    bench = Bench(place, rule(labels=str(file)))
    found = bench.standing()
    assert (found.labels, found.ready, found.fault) == (700, True, "")
    assert model_of(place).choose(features("name and describe the thingab"), (DEAR, CHEAP), 0.5).arm == CHEAP
    bench.serve(10)
    assert bench.standing().labels == 710
    assert Bench(place, rule(labels=str(file))).standing().labels == 710


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "labels.jsonl:1: "),
        ('{"prompt": "a", "scores": {"gpt-4o": 97}}', "labels.jsonl:1: "),
        ('{"prompt": "a", "scores": {"o3": 1}}', "has no score of any of these: gpt-4o, gpt"),
    ],
)
def test_a_file_that_cannot_be_used_is_said(place: Path, text: str, fault: str) -> None:
    file = place / "labels.jsonl"
    file.write_text(text)
    assert fault in Bench(place, rule(labels=str(file))).standing().fault


def test_each_agent_has_labels_of_its_own_where_that_is_asked_for(place: Path) -> None:
    bench = Bench(place, rule(per="agent"))
    for agent in ("red", "blue"):
        bench.apply(record(agent, DEAR, "x", notes={"learn": f"s|{agent}"}), report(f"run-{agent}", "success"))
    assert bench.standing("s|red").labels == bench.standing("s|blue").labels == 1
    assert Bench(place, rule(per="agent")).standing("s|red").labels == 1


def test_the_number_of_scopes_is_bounded(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "MOST_SCOPES", 3)
    bench = Bench(place, rule(per="agent"))
    bench.apply(*[record(f"c{n}", DEAR, "x", notes={"learn": f"s|{n}"}) for n in range(5)])
    bench.keep()
    assert len(bench.store.standings()) == 3


def test_more_calls_than_a_sample_are_not_kept_but_those_explored(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "MOST_NEW", 5)
    bench = Bench(place)
    bench.apply(*[record(f"c{n}", DEAR, "x") for n in range(9)])
    bench.apply(record("luck", CHEAP, "x", notes={"route_why": "explored"}))
    bench.apply(*[report(f"run-c{n}", "success") for n in range(9)], report("run-luck", "success"))
    assert bench.standing().labels == 6


def test_a_budget_becomes_a_share_of_the_cost_of_the_best(place: Path) -> None:
    """A call of the dear model takes 400 and 100 tokens: 0.002 USD. One call a minute; the budget is a fifth of that.

    There are two kinds of prompts, so nothing lies between half of them and none with the dear one. In the first ten
    minutes the rate is not known, and nothing is made of it.
    """
    fifth = 0.2 * 24 * 60 * 0.002
    free, tight, early = (
        Bench(place / "a"),
        Bench(place / "b", rule(usd_per_day=fifth)),
        Bench(place / "c", rule(usd_per_day=1e-9)),
    )
    free.serve(640, gap=60)
    tight.serve(640, gap=60)
    early.serve(590)
    costs = [bench.standing().cost for bench in (free, tight, early)]
    assert all(cost is not None for cost in costs)
    assert costs[0] > 0.4
    assert costs[1] == pytest.approx(0.06)
    assert costs[2] > 0.4
    assert tight.standing().goal == {"usd_per_day": fifth}


def test_another_configuration_takes_up_what_is_in_the_file(place: Path) -> None:
    bench = Bench(place)
    bench.serve(20)
    bench.configure(Route(to=("x",)))  # nothing learns
    bench.apply(record("lost", DEAR, "x"), report("run-lost", "success"))
    bench.configure(Route(to=(DEAR, RouteTo(model="gpt-4.1")), by="learned", learn=Learn(id="s")))
    found = bench.standing()
    assert [(arm.target, arm.labels) for arm in found.arms] == [(DEAR, 10), ("gpt-4.1", 0)]
    bench.configure(rule(), Route(to=("a", "b"), learn=Learn(id="t"), model="x"))
    assert bench.standing().labels == 20
    assert bench.standing("t").labels == 0


def test_a_file_that_cannot_be_written_is_said_once(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(place)
    bench.store.path = place / "nowhere" / "x"
    (place / "nowhere").write_text("a file")
    for number in range(3):
        bench.apply(record(f"c{number}", DEAR, "x"))
        bench.keep()
    assert len([line for line in caplog.messages if "cannot be written" in line]) == 1


def test_gauges(place: Path) -> None:
    def unusable() -> list[tuple[ScopeStanding, int]]:
        raise LearnedUnusable("damaged")

    assert routing_gauges.learned(unusable, 9) == {}
    bench = Bench(place)
    assert routing_gauges.learned(lambda: [], 9) == {}
    bench.serve(4)
    bench.keep()
    few = routing_gauges.learned(bench.store.standings, 9)
    assert few == {
        "tollgate_learned_labels": {("s", DEAR): 2.0, ("s", CHEAP): 2.0},
        "tollgate_learned_ready": {("s",): 0.0},
    }
    bench.serve(600, seed=3)
    bench.keep()
    many = routing_gauges.learned(bench.store.standings, 9)
    assert many["tollgate_learned_ready"] == {("s",): 1.0}
    assert set(many) == {*few, "tollgate_learned_quality_ratio", "tollgate_learned_cost_ratio"}


def test_workers_see_what_is_new_and_keep_what_cannot_be_read(place: Path) -> None:
    bench = Bench(place)
    bench.keep()
    watched = WatchedLearned(place / "learned.sqlite")
    assert watched.models == {}
    bench.serve(120)
    assert watched.refresh()
    first = watched.models["s"]
    bench.keep()  # how it stands is written, what was learned is the same
    watched.refresh()
    assert watched.models["s"] is first
    (place / "learned.sqlite").write_bytes(b"not a database" * 99)
    assert not watched.refresh()
    assert watched.models["s"] is first
    watched.close()
    with pytest.raises(LearnedUnusable):
        SqliteLearned(place / "learned.sqlite").standings()


def test_work_is_done_beside_in_order() -> None:
    beside, done = Beside("test"), []
    for number in range(3):
        beside.submit(lambda number=number: done.append(number))
    beside.close()
    assert beside._thread is not None
    beside._thread.join(10)
    assert done == [0, 1, 2]


def test_an_answer_that_a_cascade_withheld_is_a_label_of_the_model_that_gave_it(place: Path) -> None:
    bench = Bench(place)
    withheld = msgspec.structs.replace(attempt(CHEAP), error_code="unverified", usage=Usage(400, 50))
    escalated = record("one", CHEAP, "a", attempts=(withheld, attempt(DEAR)))
    left = record("two", CHEAP, "b", attempts=(withheld,), outcome=Outcome.CANCELLED)
    elsewhere = record("three", CHEAP, "c", attempts=(attempt(DEAR), withheld, attempt(DEAR)))
    elsewhere = msgspec.structs.replace(elsewhere, notes={**elsewhere.notes, "route_to": f"openai/{DEAR}"})
    bench.apply(escalated, escalated, left, elsewhere)
    bench.apply(report("run-one", "success"))  # which the dear one brought about
    bench.now += PATIENCE + SECOND
    dear, cheap = bench.standing().arms
    assert (cheap.labels, cheap.score) == (1.6, 0.0)  # two, of 0.8 each
    assert dear.labels == 0
    assert (dear.withheld, cheap.withheld) == (0.0, 0.125)  # three of four; but a few say little


def test_what_a_cascade_asks_in_the_stead_of_a_model_is_in_its_cost() -> None:
    """A tenth of the price, but of four answers three are withheld; where there is no cascade that is held to be no
    more than its labels say."""
    for cascade, beside in ((None, 0.0), (Cascade(), 0.75)):
        terms = terms_of(msgspec.structs.replace(rule(), cascade=cascade))
        assert terms is not None
        scope = Scope("s", terms)
        for number in range(20_000):
            scope.traffic.answered(CHEAP, withheld=number % 4 > 0)
        scope.reckon([0.01, 0.001])
        assert scope.learner.work().costs == pytest.approx([1.0, 0.1 + beside], abs=0.01)
        assert scope.standing([0.01, 0.001]).arms[1].withheld == pytest.approx(0.75, abs=0.01)
