"""What a call is charged in place of what was held for it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from gateway.call import (
    Answer,
    Asked,
    Attempt,
    Cached,
    Call,
    Money,
    Request,
    Route,
    Target,
    Trace,
    Usage,
    UsageSource,
    Who,
)
from gateway.spend import Charge, Hold
from gateway.stages.kept import history_key
from gateway.stages.settle import charge_of, settled
from gateway.testing.calls import MemoryLinks
from gateway.testing.memory_budgets import MemoryBudgets

HOLD = Hold("c", usd=9_000, tokens=500, tools=2, steps=1)
USED = Usage(100, 20)


def call(
    *,
    status: int = 200,
    sent: bool = True,
    pico: int | None = 2_000_500,
    usage: Usage | None = USED,
    source: UsageSource = UsageSource.PROVIDER,
    complete: bool = True,
    stopped: bool = False,
    **more: Any,
) -> Call:
    target = Target("openai", "openai", "h", 1, False, b"")
    answer = Answer(usage=usage, usage_source=source, complete=complete, response_id="resp_1", **more)
    made = Call(
        "c",
        Request(b"POST", b"/v1/responses", (), b"{}"),
        Route("/v1/responses", "openai_responses", "chat", "openai", b"/v1/responses"),
        Asked(model="gpt-4o", fields={"input": b"[]"}),
        Who(),
        Trace(),
        0,
        0,
    )
    made.attempts = [Attempt(target, 0, status=status, sent=sent)]
    made.answer, made.money, made.hold = answer, Money(pico), HOLD
    made.notes = {"budget": "stopped"} if stopped else {}
    return made


@pytest.mark.parametrize(
    ("made", "charge"),
    [
        (call(), Charge(2_001, 120, 1, 2, 1)),  # rounded up to the nano-dollar
        (call(pico=12_000_000, usage=Usage(900, 900)), Charge(12_000, 1800, 1, 2, 1)),  # more than was held: debt
        (call(pico=0, status=503, usage=None), Charge(0, 0, 1, 2, 1)),
        (call(sent=False, status=0, pico=0, usage=None), Charge(0, 0, 0, 0, 0)),
        (call(status=0, pico=0, usage=None), Charge(9_000, 500, 1, 2, 1)),  # broken off before it answered
        (call(pico=None, usage=None), Charge(9_000, 500, 1, 2, 1)),
        (call(source=UsageSource.ESTIMATED), Charge(2_001, 120, 1, 2, 1)),  # whole, but without usage
        (call(source=UsageSource.ESTIMATED, complete=False), Charge(9_000, 500, 1, 2, 1)),
        (call(source=UsageSource.ESTIMATED, complete=False, pico=12_000_000), Charge(12_000, 500, 1, 2, 1)),
        (call(source=UsageSource.ESTIMATED, stopped=True), Charge(9_000, 500, 1, 2, 1)),  # at what was held, or above
        (call(stopped=True), Charge(2_001, 120, 1, 2, 1)),  # the provider said how much it was
        (call(background=True, usage=None, pico=0), Charge(9_000, 500, 1, 2, 1)),
        (call(parts=((Usage(5, 5), "m", {}),)), Charge(2_001, 130, 1, 2, 1)),
    ],
)
def test_the_truth_is_charged_and_doubt_as_it_was_held(made: Call, charge: Charge) -> None:
    assert charge_of(made, HOLD) == charge


@pytest.mark.parametrize(
    ("tools", "detail", "usd"),
    [
        ([{"type": "image_generation"}], {"image_generations": 2.0}, 0.8),
        ([{"type": "code_interpreter", "container": {"type": "auto"}}], {"code_containers": 1.0}, 0.03),
        ([{"type": "code_interpreter", "container": {"memory_limit": "64g"}}], {"code_containers": 1.0}, 1.92),
        ([{"type": "code_interpreter", "container": "cntr_1"}], {"code_containers": 1.0}, 0),
        ([{"type": "image_generation"}], {}, 0),  # it may draw, and did not
    ],
)
def test_pictures_and_containers_are_charged_beside_the_tokens(
    tools: list[Any], detail: dict[str, float], usd: float
) -> None:
    made = call(usage=Usage(100, 20, detail=detail))
    made.asked.tools = msgspec.json.encode(tools)
    assert charge_of(made, HOLD).usd == charge_of(call(), HOLD).usd + round(usd * 1e9)


@pytest.mark.parametrize("result", ["exact", "joined"])
def test_an_answer_from_the_cache_is_one_request_and_nothing_else(result: str) -> None:
    made = call()
    made.cached = Cached(result)
    assert charge_of(made, HOLD) == Charge(calls=1)


def test_a_response_that_can_be_continued_is_remembered_with_its_tokens() -> None:
    links, budgets = MemoryLinks(), MemoryBudgets([])
    settled(call(), budgets, links, learn=False)
    assert links.get(history_key("default", "resp_1")) == (120).to_bytes(8, "little") + b"gpt-4o"
    assert links.get(history_key("other", "resp_1")) is None


@pytest.mark.parametrize(("field", "kept"), [("thread", True), ("messages", False)])
def test_so_is_a_message_of_a_thread_and_no_other(field: str, kept: bool) -> None:
    made, links = call(), MemoryLinks()
    made.asked.fields = {field: Raw(b"{}")}
    settled(made, MemoryBudgets([]), links, learn=False)
    assert (links.get(history_key("default", "resp_1")) is not None) == kept


def test_a_call_that_held_nothing_is_not_settled() -> None:
    made = call()
    made.hold = None
    links = MemoryLinks()
    settled(made, MemoryBudgets([]), links, learn=True)
    assert links.get(history_key("default", "resp_1")) is None
