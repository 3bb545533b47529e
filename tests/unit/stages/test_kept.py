"""The size of what a request only refers to."""

from __future__ import annotations

from typing import Any

from msgspec import json

from gateway.call import Answer, Call, Request, Route, Trace, Usage, Who
from gateway.dialects.registry import DIALECTS
from gateway.stages.kept import item_tokens, remember
from gateway.testing.calls import MemoryLinks


def call(items: list[Any], answer: Answer | None = None, tenant: str = "a", dialect: str = "openai_responses") -> Call:
    request = Request(b"POST", b"/v1/responses", (), json.encode({"model": "m", "input": items}))
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


def test_what_is_not_known_or_somebody_elses_is_not_counted() -> None:
    links = MemoryLinks()
    answered(links, "resp_1", 70, "msg_1")
    assert item_tokens(call([reference("msg_1"), reference("msg_9")]), links) == (1, 70)
    assert item_tokens(call([reference("msg_1")], tenant="b"), links) == (0, 0)
    padded = {**reference("msg_1"), "padding": "x" * 5000}  # not looked into: it stays unknown
    assert item_tokens(call([padded]), links) == (0, 0)
