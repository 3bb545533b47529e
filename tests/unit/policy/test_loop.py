"""Runaways are noticed within so many steps; what only looks like one is not. Through requests of every dialect."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.call import Money, Step, ToolCall, ToolTurn, Who
from gateway.config.schema import Loops
from gateway.dialects.steps import newest_step
from gateway.policy.loop import SIGNALS, LoopBreaker, active, check_steps, worst
from gateway.policy.loop_signals import Verdict
from gateway.policy.loop_trail import ASIDE, LIMIT, Trail, unpack
from gateway.testing.calls import MemoryLinks
from gateway.testing.tool_runs import FORMS, HONEST, RUNAWAYS, Act, Conversation, Move

NOW = 1_790_000_000 * 10**9
MINUTE = 60 * 10**9
DIALECTS = list(FORMS)
OFF = dict.fromkeys(SIGNALS, "off")


def breaker(config: Loops | None = None, links: MemoryLinks | None = None) -> LoopBreaker:
    return LoopBreaker(config or Loops(), links or MemoryLinks(), newest_step)


def play(moves, dialect="openai_chat", config=None, watch=None, **options):
    """(step, verdict) of all that was found."""
    watch = watch or breaker(config)
    talk = Conversation(dialect, options.pop("run", "run"), **options)
    found = []
    for number, move in enumerate(moves):
        talk.take(move)
        found += [(number + 1, verdict) for verdict in watch.check(talk.call(NOW, number), NOW)]
    return found


def first(found):
    steps: dict[str, int] = {}
    for number, verdict in found:
        steps.setdefault(verdict.signal, number)
    return steps


# runaway -> signal -> the step at which it is noticed at the latest
DETECTED = {
    "same call for ever": {"repeated_call": 5, "no_new_information": 11},
    "same call, its result tells the time": {"repeated_call": 20},
    "A-B-A-B": {"cycle": 10, "repeated_call": 10, "no_new_information": 12},
    "A-B-C-D": {"cycle": 12, "no_new_information": 14},
    "failing tool, same arguments": {"repeated_call": 5, "error_ping_pong": 5},
    "failing tool, other arguments": {"error_ping_pong": 5, "no_new_information": 11},
    "two tools failing in turn": {"error_ping_pong": 9, "no_new_information": 12},
    "polling with changing arguments": {"no_new_information": 11},
    "reading the same six files": {"no_new_information": 16},
    "rewording the same answer": {"no_new_information": 13},
    "saying the same": {"no_new_information": 13},
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", RUNAWAYS)
def test_runaways_are_noticed(name: str, dialect: str) -> None:
    found = first(play(islice(RUNAWAYS[name](Random(3)), 30), dialect))
    for signal, latest in DETECTED[name].items():
        assert found.get(signal, 1000) <= latest, found


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", HONEST)
def test_honest_runs_are_left_alone(name: str, dialect: str) -> None:
    watch = breaker()
    for seed in range(6):
        assert play(islice(HONEST[name](Random(seed)), 150), dialect, watch=watch, run=f"run {seed}") == []


def polls(number: int) -> Iterator[Move]:
    for _ in range(number):
        yield Move([Act("job_status", {"id": 1}, "running")])
    yield Move([Act("job_status", {"id": 1}, "done")])


def test_the_limit_of_polling() -> None:
    assert play(polls(4)) == []
    assert first(play(polls(5))) == {"repeated_call": 5}
    assert first(play(polls(5), config=Loops(repeats=6))) == {}


def test_a_reason_names_the_tool_and_the_count() -> None:
    (_, verdict), *_ = play(polls(5))
    assert verdict == Verdict(
        "repeated_call",
        "note",
        "job_status was called 5 times within the last 5 steps with the same arguments and the same result. Repeating "
        "it will not change the result: use what it returned, change the approach, or finish.",
        {"tools": "job_status", "count": 5, "steps": 5},
    )


def test_names_are_foreign_text() -> None:
    act = Act("x" * 200 + "\r\nset-cookie: a", {}, "same")
    (_, verdict), *_ = play([Move([act])] * 5)
    assert "\n" not in verdict.reason
    assert len(verdict.reason) < 400


def test_work_in_between_takes_twice_as_many() -> None:
    def moves() -> Iterator[Move]:
        for n in range(20):
            yield Move([Act("edit", {"text": "a" * (n + 1)}, "ok")])
            yield Move([Act("test", {}, "1 failed")])

    assert first(play(moves())) == {"repeated_call": 20}


def test_order_of_parallel_calls_does_not_matter() -> None:
    one, two = Act("a", {"x": 1}, "1"), Act("b", {"x": 2}, "2")
    moves = [Move([one, two]), Move([two, one])] * 3
    assert first(play(moves))["repeated_call"] == 5


def test_many_sub_agents_that_begin_alike_are_no_loop() -> None:
    watch = breaker()
    for n in range(12):
        readme = [Move([Act("read", {"path": "README.md"}, "# hello")])]
        assert play(readme, watch=watch, prompt=f"Look at part {n}.") == []


def test_retries_and_samples_of_one_request_count_once() -> None:
    watch = breaker()
    talk = Conversation("openai_chat", "run")
    talk.take(Move([Act("search", {"q": 1}, "none")]))
    for number in range(30):
        assert watch.check(talk.call(NOW, number), NOW) == []


def test_what_was_stopped_is_stopped_again_until_something_changes() -> None:
    watch = breaker(Loops(repeated_call="stop"))
    talk = Conversation("openai_chat", "run")
    for number, move in enumerate(islice(polls(9), 5)):
        talk.take(move)
        found = watch.check(talk.call(NOW, number), NOW)
    for number in range(3):
        assert [verdict.action for verdict in watch.check(talk.call(NOW, number), NOW)] == ["stop"]
    assert found == watch.check(talk.call(NOW, 9), NOW)
    talk.take(Move([Act("cancel_job", {"id": 1}, "cancelled")]))
    assert watch.check(talk.call(NOW, 10), NOW) == []


def test_runs_do_not_mix() -> None:
    watch = breaker()
    for run in range(10):
        assert play(polls(3), watch=watch, run=f"run {run}") == []


def test_it_goes_on_in_another_worker() -> None:
    links = MemoryLinks()
    talk, found = Conversation("anthropic", "run"), []
    for number, move in enumerate(polls(5)):
        talk.take(move)
        found += breaker(links=links).check(talk.call(NOW, number), NOW)
    assert [verdict.signal for verdict in found] == ["repeated_call"]
    assert all(len(value) <= LIMIT for value in links.values.values())


@pytest.mark.parametrize("dialect", ["openai_chat", "anthropic", "openai_responses"])
def test_agents_that_are_asked_the_same_at_once_repeat_nothing(dialect: str) -> None:
    """Six sub-agents, side by side and one behind the other; one of them runs away and is noticed all the same."""
    moves = list(islice(HONEST["researcher"](Random(3)), 6))
    for together in (True, False):
        watch, talks = breaker(), [Conversation(dialect, "run", calls=100 * n) for n in range(6)]
        found = []
        orders = product(moves, talks) if together else map(reversed, product(talks, moves))
        for number, (move, talk) in enumerate(orders):
            talk.take(move)
            found += watch.check(talk.call(NOW, number), NOW)
        assert not found
        runaway = islice(RUNAWAYS["same call for ever"](Random(1)), 2 * ASIDE)
        for number, move in enumerate(runaway):
            talks[2].take(move)
            found += watch.check(talks[2].call(NOW, number), NOW)
        assert "repeated_call" in {verdict.signal for verdict in found}


@pytest.mark.parametrize("dialect", ["openai_chat", "anthropic", "openai_responses"])
def test_a_window_of_the_history_is_enough(dialect: str) -> None:
    """The steps before the window began to slide count apart."""
    found = first(play(islice(RUNAWAYS["same call for ever"](Random(1)), 8), dialect, window=4))
    assert found["repeated_call"] in (5, 6)


@pytest.mark.parametrize("signal", [name for name in SIGNALS if name not in ("call_rate", "spend_rate", "depth")])
def test_a_signal_that_is_off_says_nothing(signal: str) -> None:
    moves = [move for name in RUNAWAYS for move in islice(RUNAWAYS[name](Random(1)), 25)]
    on = {name for name in first(play(moves, config=Loops(**OFF | {signal: "stop"})))}
    assert on == {signal}
    assert signal not in first(play(moves, config=Loops(**{signal: "off"})))


def test_where_all_are_off_nothing_is_touched() -> None:
    config = Loops(**OFF)
    links = MemoryLinks()

    def read(*_: object) -> Step:
        raise AssertionError

    watch = LoopBreaker(config, links, read)
    assert not active(config)
    assert active(Loops(**OFF | {"depth": "note"}))
    talk = Conversation("openai_chat", "run")
    call = talk.call(NOW, 1)
    call.who.depth = 99
    assert watch.check(call, NOW) == []
    watch.learn(call, NOW)
    assert links.values == {}


def test_without_a_run_there_is_nothing_to_watch() -> None:
    links = MemoryLinks()
    watch = breaker(links=links)
    call = Conversation("openai_chat", "run").call(NOW, 1)
    call.who = Who(depth=99)
    assert watch.check(call, NOW) == []
    watch.learn(call, NOW)
    assert links.values == {}


def test_the_first_call_of_an_unnamed_run_leaves_nothing_behind() -> None:
    links = MemoryLinks()
    watch = breaker(links=links)
    call = Conversation("openai_chat", "run").call(NOW, 1)
    call.who.run_source = "new"
    assert watch.check(call, NOW) == []
    watch.learn(call, NOW)
    assert links.values == {}
    call.who.run_source = "prefix"
    watch.learn(call, NOW)
    assert len(links.values) == 1


def test_depth() -> None:
    watch = breaker(Loops(max_depth=3, depth="stop"))
    call = Conversation("openai_chat", "run").call(NOW, 1)
    call.who.depth = 3
    assert watch.check(call, NOW) == []
    call.who.depth = 4
    (verdict,) = watch.check(call, NOW)
    assert (verdict.signal, verdict.action, verdict.evidence) == ("depth", "stop", {"count": 4})


def test_rates_of_a_run_against_its_agent() -> None:
    links = MemoryLinks()
    watch = breaker(Loops(call_rate="warn", spend_rate="stop"), links)
    for run in range(6):
        for minute in range(5):
            call = Conversation("openai_chat", f"run {run}").call(NOW, 1)
            call.money = Money(10**9)
            for _ in range(4):
                watch.learn(call, NOW + minute * MINUTE)
    call = Conversation("openai_chat", "runaway").call(NOW, 1)
    call.money = Money(5 * 10**10)
    found = []
    for n in range(80):
        found += [(n, verdict) for verdict in watch.check(call, NOW + n)]
        watch.learn(call, NOW + n)
    assert first(found) == {"call_rate": 60, "spend_rate": 20}
    assert worst([verdict for _, verdict in found]).action == "stop"
    assert watch.check(call, NOW + 2 * MINUTE) == []


def test_the_worst_is_the_strongest_action_then_the_first() -> None:
    made = [Verdict(name, action, "", {}) for name, action in (("a", "note"), ("b", "stop"), ("c", "stop"))]
    assert worst(made) is made[1]
    assert worst([]) is None


def test_results_alone_fail_under_the_names_of_their_calls_and_are_else_news() -> None:
    """Requests that name the response before send results only: the arguments are not known, the names are."""
    trail, found = Trail(), []
    for n in range(30):
        step = Step((ToolTurn(f"c{n}", "", 0, 0, 42),), key=n + 1)
        found += check_steps(trail, step, {f"c{n}": "search"}, Loops())
    assert found == []
    for n in range(5):
        step = Step((ToolTurn(f"f{n}", "", 0, 0, 43, failure=7),), key=n + 100)
        found += check_steps(trail, step, {f"f{n}": "search"}, Loops())
    assert [(verdict.signal, verdict.evidence["tools"]) for verdict in found] == [("error_ping_pong", "search")]


def test_names_of_tools_come_from_the_pairing_of_identity() -> None:
    watch, found = breaker(), []
    talk = Conversation("openai_responses", "run", window=1)
    for number in range(5):
        talk.take(Move([Act("sql", {}, "Error: refused", True)]))
        call = talk.call(NOW, number)
        call.tools = [ToolCall(f"call_{number:06}", "sql", 0, 0)]
        found += watch.check(call, NOW)
    assert [verdict.evidence["tools"] for verdict in found] == ["sql"]


words = st.integers(0, 2**32 - 1)
turns = st.builds(ToolTurn, st.text(max_size=3), st.text(max_size=5), words, words, words, words | st.just(0))
steps = st.builds(Step, st.lists(turns, max_size=4).map(tuple), words, words, st.text(max_size=80), words, words)


@given(st.lists(steps, max_size=60), st.builds(Loops, window=st.integers(4, 32), repeats=st.integers(2, 40),
                                               period=st.integers(1, 16)))  # fmt: skip
@settings(deadline=None)
def test_never_raises_and_stays_small(made: list[Step], config: Loops) -> None:
    value = None
    for step in made:
        trail = unpack(value)
        for verdict in check_steps(trail, step, {}, config):
            assert verdict.reason
        value = trail.pack()
        assert len(value) <= LIMIT


@given(st.lists(words.filter(bool), min_size=1, max_size=80, unique=True), st.integers(2, 8))
@settings(deadline=None)
def test_no_alarm_without_repetition(results: list[int], repeats: int) -> None:
    """Calls that all differ in shape and result, and work: whatever is configured, nothing is found.

    With repeats of 2 chance may make steps equal, as fingerprints have 16 bits: so they are drawn apart."""
    trail = Trail()
    for n, result in enumerate(results):
        step = Step((ToolTurn(f"c{n}", "f", n * 7919 + 1, n * 104_729 + 1, result),), key=n + 1)
        assert not check_steps(trail, step, {}, Loops(repeats=max(repeats, 3)))
