"""The size of what a request only refers to."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import json

from gateway.call import Answer, Call, Request, Route, Trace, Usage, Who
from gateway.dialects.registry import DIALECTS
from gateway.stages.kept import history_tokens, item_tokens, remember
from gateway.testing.calls import MemoryLinks
from gateway.testing.doubles import World


def call(
    items: list[Any], answer: Answer | None = None, tenant: str = "a", dialect: str = "openai_responses", **more: Any
) -> Call:
    request = Request(b"POST", b"/v1/responses", (), json.encode({"model": "m", "input": items, **more}))
    route = Route("/v1/responses", dialect, "chat", "openai", b"/v1/responses")
    made = Call("c", request, route, DIALECTS[dialect].read(route, request), Who(tenant), Trace(), 0, 0)
    made.answer = answer
    return made


def reference(id: str) -> dict[str, str]:
    return {"type": "item_reference", "id": id}


def answered(links: MemoryLinks, response: str, output: int, *items: str) -> None:
    remember(call(["hi"], Answer("m", response, Usage(1000, output), items=items)), links)


def test_items_count_as_the_output_that_they_were_made_in_once_for_each_response() -> None:
    links = MemoryLinks()
    answered(links, "resp_1", 70, "rs_1", "msg_1")
    answered(links, "resp_2", 5, "msg_2")
    assert item_tokens(call([reference("rs_1"), {"id": "msg_1"}, reference("msg_2"), {"role": "user"}]), links) == (
        3,
        75,
    )


@pytest.mark.parametrize(
    ("before", "model", "tokens"),
    [
        ("gpt-4o", "gpt-4o", 1_070),
        ("gpt-4o-mini", "gpt-4o", 1_070),
        ("gpt-4o", "gpt-4o-mini", 34 * 1_070),  # 25,501 tokens of a picture of 765
        ("gpt-5", "gpt-4o-mini", 41 * 1_070),
    ],
)
def test_a_history_counts_by_what_another_model_makes_of_its_pictures(before: str, model: str, tokens: int) -> None:
    links, world = MemoryLinks(), World()
    asked = call(["hi"], Answer(before, "resp_1", Usage(1_000, 70)))
    asked.model_sent = before
    remember(asked, links)
    later = call(["hi"], previous_response_id="resp_1")
    later.model_sent = model
    assert history_tokens(later, world.gateway(), links) == tokens
    asked.answer = Answer(before, "resp_1", Usage(100_000, 70))
    remember(asked, links)
    assert (history_tokens(later, world.gateway(), links) or 0) <= 128_000


def test_what_is_not_known_or_somebody_elses_is_not_counted() -> None:
    links = MemoryLinks()
    answered(links, "resp_1", 70, "msg_1")
    assert item_tokens(call([reference("msg_1"), reference("msg_9")]), links) == (1, 70)
    assert item_tokens(call([reference("msg_1")], tenant="b"), links) == (0, 0)
    padded = {**reference("msg_1"), "padding": "x" * 5000}  # not looked into: it stays unknown
    assert item_tokens(call([padded]), links) == (0, 0)
