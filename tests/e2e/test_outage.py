"""A provider goes away, and the agents do not notice: calls through an outage, counted, with a healthy fallback.

Nothing here is timed: what is counted is how many calls succeed, where they went, and what was recorded of each.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.fault_upstream import FaultyProvider, scenario
from gateway.testing.faults import Close, Repeat, Reset, Script, Send, Wait, answer, chunked
from gateway.testing.gateway import RunningGateway, dead_port
from gateway.testing.raw import RawAnswer, RawClient, post
from gateway.testing.scripted import Background, ScriptedUpstream

CHAT = "/v1/chat/completions"
CALLS, AT_ONCE = 240, 8
ERROR = b'{"error":{"message":"busy","type":"server_error","code":"server_is_overloaded"}}'
GOOD = (
    b'{"id":"c","object":"chat.completion","model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"from the first"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}'
)
PING = b": ping\n\n"
TIMEOUTS = {"connect": 1, "first_byte": 0.5, "first_content": 0.5, "idle": 0.5, "total": 20}


def busy(status: bytes, *headers: bytes) -> Script:
    return [Send(answer(ERROR, *headers, status=status))]


OUTAGES: dict[str, Script] = {
    "down": [Reset()],
    "500": busy(b"500 Internal Server Error"),
    "503": busy(b"503 Service Unavailable", b"retry-after: 30"),
    "529": busy(b"529 Overloaded"),
    "429": busy(b"429 Too Many Requests", b"retry-after-ms: 20000"),
    "429 of tokens": busy(
        b"429 Too Many Requests", b"x-ratelimit-remaining-tokens: 0", b"x-ratelimit-reset-tokens: 6m0s"
    ),
    "stalls before headers": [Wait(3600)],
    "stalls in the answer": [Send(answer(GOOD[:40], length=len(GOOD))), Wait(3600)],
    "cut in the answer": [Send(answer(GOOD[:40], length=len(GOOD))), Reset()],
    "stalls before content": [Send(chunked(PING, end=b"")), Wait(3600)],
    "pings without content": [Send(chunked(end=b"")), Repeat(b"8\r\n" + PING + b"\r\n", 200, 0.1)],
    "error in a 200": [Send(chunked(b"data: " + ERROR + b"\n\n")), Close()],
    "ends without content": [Send(chunked(PING))],
    "broken events": [Send(chunked(b'data: {"id": "c", "choi\n\n', b"data: [DONE]\n\n"))],
    "garbage": [Send(bytes(range(256))), Close()],
    "a web page": [Send(answer(b"<html></html>").replace(b"application/json", b"text/html"))],
}  # fmt: skip
STREAMED = {"stalls before content", "pings without content", "error in a 200", "ends without content", "broken events"}


@pytest.fixture(scope="module")
def sick() -> Iterator[ScriptedUpstream]:
    scripts: dict[str, Any] = {"good": [Send(answer(GOOD))], "slow": [Wait(0.2), Send(answer(GOOD))], **OUTAGES}
    with Background(ScriptedUpstream(scripts)) as running:
        yield running


@pytest.fixture(scope="module")
def well() -> Iterator[FakeUpstream]:
    with FakeUpstream(5) as running:
        yield running


def settings(sick: ScriptedUpstream, well: FakeUpstream, **more: Any) -> dict[str, Any]:
    known = {"dialect": "openai", "provider": "openai", "timeouts": TIMEOUTS}
    return {
        "upstreams": {
            "sick": {**known, "url": sick.url},
            "gone": {**known, "url": f"http://127.0.0.1:{dead_port()}"},
            "well": {"dialect": "openai", "url": well.url, "provider": "openai", "key": "sk-of-the-backup"},
        },
        "fallbacks": [{"upstream": name, "to": ["well"]} for name in ("sick", "gone")],
        "telemetry": {"log": None},
        **more,
    }


@pytest.fixture(scope="module")
def gate(sick: ScriptedUpstream, well: FakeUpstream) -> Iterator[RunningGateway]:
    """Without a breaker, so that every call meets the failure."""
    with RunningGateway(**settings(sick, well, breakers={"enabled": False})) as running:
        yield running


@pytest.fixture
def guarded(sick: ScriptedUpstream, well: FakeUpstream) -> Iterator[RunningGateway]:
    with RunningGateway(**settings(sick, well, breakers={"consecutive": 3, "pause": 1, "longest": 1})) as running:
        yield running


def ask(gate: RunningGateway, upstream: str, how: str, n: int, run: str, *, stream: bool) -> RawAnswer:
    body: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": f"[[say back {n}]]"}]}
    if stream:
        body["stream"] = True
    raw = json.dumps(body).encode()
    path = f"/{upstream}{CHAT}"
    with RawClient(int(gate.url.rpartition(":")[2]), timeout=20) as client:
        script = [b"x-script: " + how.encode()] if how else []
        client.send(post(path, raw, *script, b"x-session-id: " + run.encode()))
        return client.answer()


def succeeded(got: RawAnswer, n: int, *, stream: bool) -> bool:
    if got.status != 200 or not got.complete:
        return False
    return b"[DONE]" in got.body if stream else b"back" in got.body or b"from the first" in got.body


def through(
    gate: RunningGateway, upstream: str, scripts: list[str], run: str, *, stream: bool = False
) -> list[RawAnswer]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        made = list(pool.map(lambda n: ask(gate, upstream, scripts[n], n, run, stream=stream), range(len(scripts))))
    lost = [got for n, got in enumerate(made) if not succeeded(got, n, stream=stream)]
    assert len(lost) <= len(made) // 1000, f"{len(lost)} of {len(made)} failed: {lost[0].status} {lost[0].body[:300]!r}"
    return made


@pytest.mark.parametrize("how", OUTAGES)
def test_calls_succeed_while_the_first_upstream_fails(gate: RunningGateway, how: str) -> None:
    count = CALLS // 10 if "stalls" in how or "pings" in how else CALLS
    made = through(gate, "sick", [how] * count, f"outage {how}", stream=how in STREAMED)
    assert {got.get("x-tollgate-upstream") for got in made} == {"well"}
    if "first" in how or how in STREAMED:
        assert all(PING not in got.body and ERROR not in got.body for got in made), "nothing of the failure is seen"


def test_and_while_it_does_not_even_listen(gate: RunningGateway) -> None:
    made = through(gate, "gone", ["good"] * CALLS, "gone")
    assert {got.get("x-tollgate-attempts") for got in made} == {"2"}


def test_a_third_of_errors_costs_nobody_an_answer(gate: RunningGateway) -> None:
    scripts = ["503" if n % 10 < 3 else "good" for n in range(CALLS)]
    made = through(gate, "sick", scripts, "a third")
    went = Counter(got.get("x-tollgate-upstream") for got in made)
    assert went == {"sick": CALLS * 7 // 10, "well": CALLS * 3 // 10}


def test_what_is_recorded_of_it(gate: RunningGateway) -> None:
    through(gate, "sick", ["cut in the answer"] * 3, "for the record")
    cut = ["upstream_cut", None]
    calls = gate.until(
        lambda: [
            call
            for call in gate.get("/api/calls", limit=50)["calls"]
            if [attempt["error_code"] for attempt in call["attempts"]] == cut
        ],
        lambda found: len(found) >= 3,
    )
    for call in calls:
        first, second = call["attempts"]
        assert (first["upstream"], second["upstream"], call["upstream"]) == ("sick", "well", "well")
        assert call["outcome"] == "ok"
        assert first["cost_usd"] > 0, "a cut answer was paid for"
        assert call["cost_components"]["failed_attempts"] == pytest.approx(first["cost_usd"])
        assert call["cost_usd"] == pytest.approx(sum(call["cost_components"].values()))
    page = gate.until(lambda: gate.text("/metrics"), lambda text: "tollgate_fallbacks_total{" in text)
    assert 'to="well"' in page


def test_once_it_is_known_to_fail_it_is_left_alone_and_healed_by_one_probe(
    guarded: RunningGateway, sick: ScriptedUpstream
) -> None:
    before = len(sick.of("500"))
    through(guarded, "sick", ["500"] * 20, "breaking")
    (one,) = guarded.until(lambda: guarded.get("/api/breakers")["breakers"], bool)
    assert (one["name"], one["workers"], one["why"] in ("3 failures in a row", "a probe failed")) == (
        "sick/gpt-4o",
        1,
        True,
    )
    made = through(guarded, "sick", ["500"] * CALLS, "broken")
    alone = sum(got.get("x-tollgate-attempts") == "1" for got in made)
    assert alone > CALLS * 0.9, "most calls do not meet the failure"
    assert len(sick.of("500")) - before < 3 + 2 * AT_ONCE + CALLS * 0.1
    named = 'tollgate_breaker_open{breaker="sick/gpt-4o"} 1.0'
    guarded.until(lambda: guarded.text("/metrics"), lambda text: named in text)
    # healed: the next probe finds it out, and from then on everything goes there
    guarded.until(lambda: ask(guarded, "sick", "good", 0, "healing", stream=False), _of_the_first)
    assert all(map(_of_the_first, through(guarded, "sick", ["good"] * 40, "healed")))
    states = guarded.until(
        lambda: guarded.get("/api/breakers")["breakers"], lambda found: found[0]["state"] == "closed"
    )
    assert states[0]["workers"] == 0
    page = guarded.until(lambda: guarded.text("/metrics"), lambda text: "tollgate_breakers_open 0.0" in text)
    assert 'tollgate_breaker_changes_total{breaker="sick/gpt-4o",state="closed"} 1.0' in page
    assert "tollgate_breaker_open{" not in page


def _of_the_first(got: RawAnswer) -> bool:
    return got.get("x-tollgate-upstream") == "sick"


@pytest.mark.parametrize("how", ["stalls before headers", "stalls before content"])
def test_a_probe_waits_for_no_upstream_that_stalls_and_finds_one_well_that_is_slower(
    sick: ScriptedUpstream, well: FakeUpstream, how: str
) -> None:
    stream, breakers = how in STREAMED, {"consecutive": 3, "pause": 0.1, "longest": 0.1}
    with RunningGateway(**settings(sick, well, breakers=breakers)) as gate:
        through(gate, "sick", [how] * 2 * AT_ONCE, "stalling", stream=stream)
        gate.until(lambda: gate.get("/api/breakers")["breakers"], bool)
        before, made = len(sick.of(how)), []
        while len(sick.of(how)) < before + 3 and len(made) < 5000:
            made.append(ask(gate, "sick", how, 0, "probing", stream=stream))
        assert all(succeeded(got, 0, stream=stream) for got in made)
        named = {got.get("x-tollgate-request-id") for got in made}
        calls = [call for call in gate.calls(2 * AT_ONCE + len(made)) if call["id"] in named]
        probes = [call for call in calls if "probe" in call["notes"]]
        assert len(probes) >= 3
        for call in probes:
            assert (call["notes"]["probe"], call["notes"]["probe_to"]) == ("won", "well")
            assert [attempt["error_code"] for attempt in call["attempts"]] == ["overtaken", None]
            assert call["cost_usd"] == pytest.approx(sum(call["cost_components"].values()))
        waited = [call for call in calls for attempt in call["attempts"] if "timeout" in (attempt["error_code"] or "")]
        assert not waited, "nobody waits for it any more"
        counted = 'tollgate_probes_beside_total{result="won",to="well",upstream="sick"}'
        gate.until(lambda: gate.text("/metrics"), lambda text: counted in text)
        gate.until(lambda: ask(gate, "sick", "slow", 0, "healing", stream=False), _of_the_first)


def test_a_person_holds_it_open(guarded: RunningGateway) -> None:
    held = guarded.post("/api/breakers", {"name": "sick", "state": "open", "reason": "maintenance", "by": "me"})
    assert held["in_force"]
    assert not any(map(_of_the_first, through(guarded, "sick", ["good"] * 20, "held")))
    (one,) = guarded.get("/api/breakers")["breakers"]
    assert (one["name"], one["forced"], one["state"]) == ("sick", "open", "closed")
    guarded.post("/api/breakers", {"name": "sick", "state": "auto"})
    assert all(map(_of_the_first, through(guarded, "sick", ["good"] * 20, "released")))
    assert guarded.get("/api/breakers")["breakers"] == []


def test_without_a_fallback_it_is_asked_again_unless_the_client_does_that() -> None:
    phases = scenario("1 503, 1 429_ms, 1 reset_before_answer, 1 ok, 1 error_in_200, 2 ok, 1 503, ok")
    with Background(FaultyProvider(phases)) as up:
        upstreams = {"openai": {"dialect": "openai", "url": up.url, "provider": "openai"}}
        retries = {"attempts": 4, "base": 0.01, "longest": 2, "budget": 1}
        with RunningGateway(upstreams, retries=retries, telemetry={"log": None}) as gate:
            first = ask(gate, "openai", "", 0, "retries", stream=False)
            assert first.status == 200
            assert first.get("x-tollgate-attempts") in ("4", "5")  # as below
            assert b"back 0" in first.body
            second = ask(gate, "openai", "", 1, "retries", stream=True)
            assert second.status == 200
            assert second.get("x-tollgate-attempts") in ("2", "3")  # one more where the kept connection just ended
            assert ERROR not in second.body
            assert b"[DONE]" in second.body
            assert ask(gate, "openai", "", 2, "retries", stream=False).get("x-tollgate-attempts") == "1"
            with RawClient(int(gate.url.rpartition(":")[2]), timeout=20) as client:
                body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}'
                client.send(post(CHAT, body, b"x-stainless-retry-count: 0"))
                got = client.answer()
            assert (got.status, got.get("x-tollgate-attempts")) == (503, "1")
            page = gate.until(
                lambda: gate.text("/metrics"), lambda text: 'retries_withheld_total{reason="sdk"}' in text
            )
            assert 'tollgate_retries_total{reason="rate_limited"} 1.0' in page
            assert 'tollgate_retries_total{reason="upstream_reset"} 1.0' in page
        assert up.played == ["503", "429_ms", "reset_before_answer", "ok", "error_in_200", "ok", "ok", "503"]
