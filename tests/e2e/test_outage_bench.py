"""The benchmark of outages judges right: what a client got is whole, or was told, or only looks whole."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.bench import outage, outage_report, outage_subjects
from tests.bench.outage import Clients, Row, measure, quantile
from tests.bench.outage_subjects import CHAT, MODEL, Subject, litellm_settings, settings
from tests.bench.outage_world import (
    FIRST,
    OK,
    SCENARIOS,
    WELL,
    Got,
    Provider,
    Scenario,
    Verdict,
    document,
    events,
    prompt,
    script,
)

WHOLE, TOLD, FALSE = Verdict.WHOLE, Verdict.TOLD, Verdict.FALSE
NAMED = {one.name: one for one in SCENARIOS}
# what a client gets of each fault without any gateway between: for JSON, for streams
BARE = {
    OK: (WHOLE, WHOLE),
    "503": (TOLD, TOLD),
    "429": (TOLD, TOLD),
    "reset": (TOLD, TOLD),
    "stall": (TOLD, TOLD),
    "silent": (TOLD, TOLD),
    "pings": (TOLD, TOLD),
    "cut_reset": (TOLD, TOLD),
    "cut_closed": (TOLD, TOLD),
    "cut_ended": (FALSE, FALSE),
    "half": (FALSE, FALSE),
    "page": (FALSE, FALSE),
    "noise": (FALSE, FALSE),
}


def stream(*parts: bytes) -> Got:
    return Got(7, True, 200, ended=True, body=b"".join(parts))


def whole(body: bytes, **more: Any) -> Got:
    return Got(7, False, 200, ended=True, body=body, **more)


def test_every_fault_of_every_scenario_is_known_and_judged() -> None:
    assert {fault for one in SCENARIOS for fault in one.faults} == BARE.keys()
    errors = NAMED["errors"].faults
    assert sum(fault != OK for fault in errors) / len(errors) == 0.3
    with pytest.raises(KeyError):
        script("nobody knows", FIRST, prompt(1).encode())


@pytest.mark.parametrize("who", [FIRST, WELL])
def test_a_whole_answer_is_whole_whoever_gives_it(who: str) -> None:
    assert (whole(document(who, 7)).verdict, whole(document(who, 7)).by) == (WHOLE, who)
    assert (stream(*events(who, 7, usage=True)).verdict, stream(*events(who, 7, usage=True)).by) == (WHOLE, who)


def test_but_it_must_be_of_this_call_and_of_one_upstream() -> None:
    assert whole(document(FIRST, 8)).verdict is FALSE
    begun, all_of_it = events(FIRST, 7, usage=False)[:5], events(WELL, 7, usage=False)
    assert stream(*begun, *all_of_it).verdict is FALSE, "a beginning, and then the whole of another answer"


def test_who_is_told_knows() -> None:
    begun = events(FIRST, 7, usage=False)[:5]
    error, done = b'data: {"error":{"message":"cut"}}\n\n', b"data: [DONE]\n\n"
    assert stream(*begun, error).verdict is TOLD
    assert stream(*begun, error, done).verdict is TOLD
    assert stream(*begun, b"event: error\ndata: x\n\n").verdict is TOLD
    assert stream(*begun, done).verdict is FALSE
    assert stream(*begun).verdict is FALSE
    assert Got(7, True, 200, ended=False, body=b"".join(begun)).verdict is TOLD
    assert Got(7, False, 503, ended=True, body=document(FIRST, 7)).verdict is TOLD
    assert Got(7, False).verdict is TOLD, "no answer at all"


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("fault", BARE)
async def test_without_a_gateway_a_fault_is_what_it_says(fault: str, streams: bool) -> None:
    timeout = aiohttp.ClientTimeout(total=1 if fault in ("stall", "silent", "pings") else 30)
    async with Provider(FIRST) as first, aiohttp.ClientSession(timeout=timeout) as session:
        await first.fail(Scenario("one", "one", (fault,)))
        clients = Clients(Subject("none", first.url, (CHAT, MODEL), (CHAT, MODEL)), session, 1000)
        calls, controls = await clients.send(1, stream=streams)
        await clients.over()
        assert (calls[0].verdict, controls, first.asked) == (BARE[fault][streams], [], [0])


async def test_nobody_listens_until_it_is_well_again() -> None:
    async with Provider(FIRST) as first, aiohttp.ClientSession() as session:
        clients = Clients(Subject("none", first.url, (CHAT, MODEL), (CHAT, MODEL)), session, 1000)
        await first.fail(NAMED["refuse"])
        (lost,), _ = await clients.send(1, stream=False)
        await clients.over()
        await first.heal()
        (got,), _ = await clients.send(1, stream=False)
        await clients.over()
        assert (lost.status, lost.verdict, got.verdict, got.by) == (0, TOLD, WHOLE, FIRST)


def test_added_is_over_controls_of_the_second_half() -> None:
    row = Row("tollgate", SCENARIOS[0], stream=False, began=0, healed=10)
    body = document(WELL, 7)
    row.calls = [whole(body, began=1, seconds=9), whole(body, began=6, seconds=0.5), Got(7, False, began=7, seconds=9)]
    row.controls = [whole(body, began=2, seconds=9), whole(body, began=6, seconds=0.2)]
    assert row.added(0.5) == pytest.approx(300)
    assert (row.slowest, row.count(WHOLE), row.count(TOLD)) == (9, 2, 1)
    row.controls = []
    assert row.added(0.5) is None
    assert [quantile([3, 1, 2], share) for share in (0, 0.5, 0.99)] == [1, 2, 3]
    assert outage_report.share(9_999_999, 10_000_000) == "99.99 %"


def test_both_are_told_of_the_same_upstreams_and_times() -> None:
    ours = settings("http://a", "http://b")
    assert [one["url"] for one in ours["upstreams"].values()] == ["http://a", "http://b"]
    for ordered in (True, False):
        theirs = litellm_settings("http://a", "http://b", ordered=ordered)
        bases = [(one["model_name"], one["litellm_params"]["api_base"]) for one in theirs["model_list"]]
        assert bases[0] == (MODEL, "http://a/v1")
        assert bases[-1] == (WELL, "http://b/v1")
        assert theirs["router_settings"]["cooldown_time"] == ours["breakers"]["longest"]
        for one in theirs["model_list"]:
            assert one["litellm_params"]["timeout"] == ours["upstreams"]["openai"]["timeouts"]["first_byte"]


def test_ours_goes_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage_subjects, "PATIENCE", 20.0)  # nothing stalls here, and a busy machine shall not matter
    monkeypatch.setattr(outage_subjects, "LEFT_ALONE", 0.2)
    monkeypatch.setattr(outage, "GIVE_UP", 60.0)
    options = argparse.Namespace(calls=40, rate=100.0, peers=Path("none"), peer=[], only=None)
    chosen = [NAMED[name] for name in ("refuse", "errors", "cut", "garbage")]
    rows = asyncio.run(measure("tollgate", chosen, options))
    assert [(row.scenario.name, row.stream) for row in rows] == [
        (one.name, way) for one in chosen for way in (False, True)
    ]
    for row in rows:
        assert row.recovered is not None
        assert row.count(FALSE) == 0
        if row.scenario.name != "cut" or not row.stream:  # what was passed on cannot be healed
            assert row.count(TOLD) == 0, row
    text = outage_report.document(rows, options, (0.0, 0.0))
    assert text.count("| Tollgate |") == len(rows)
