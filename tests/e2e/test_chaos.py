"""Providers that fail at random, clients that leave at random, and nothing ends wrong.

Ten minutes of bad weather compressed in time: the time limits are a tenth of what an operator would set, and so are
the stalls. Faults are drawn from a seed. TOLLGATE_CHAOS=<times> makes it as many times longer.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.fault_upstream import FaultyProvider
from gateway.testing.gateway import RunningGateway
from gateway.testing.raw import NoAnswer, RawAnswer, RawClient, post
from gateway.testing.scripted import Background
from tests.e2e.test_soak import Size, size_of

TIMES = int(os.environ.get("TOLLGATE_CHAOS", "1"))
CALLS, CLIENTS, SEED = 2400 * TIMES, 12, 20
LEAVING, BREAKING = 0.05, 0.1  # shares of the clients that leave, and of the answers that break off in their middle
CHECKED = 0.15  # share of the calls whose answers a cascade checks
LATE, LATENESS = 0.05, 0.2  # share of the answers whose first content is late, whoever gives them, and by how much (s)
TIMEOUTS = {"connect": 1, "first_byte": 1, "first_content": 1, "idle": 1, "total": 10}
DIALECTS = ("openai", "anthropic", "gemini")
MODELS = {"openai": "gpt-4o", "anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-flash"}
CHEAP = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5", "gemini": "gemini-2.5-flash-lite"}
SCHEMA: Any = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
TERMINAL = {"openai": b"data: [DONE]", "anthropic": b"event: message_stop", "gemini": b'"finishReason"'}
WEATHER = (
    *("408", "409", "429", "429_ms", "429_seconds", "429_requests", "500", "502", "503", "504", "529", "no_retry"),
    *("bad_chunk_size", "broken_gzip", "close_at_accept", "close_before_answer", "cut_in_chunk", "error_in_200"),
    *("garbage", "html", "length_too_long", "not_http", "refuse", "reset_before_answer", "reset_in_body", "slow_drip"),
    *("stall_at_accept", "stall_before_content", "stall_before_head", "stream_reset", "stream_stall"),
)
IN_THE_MIDDLE = ("cut", "reset", "eof", "stall", "garbage", "mid_frame")
ENDS_HERE = "-the-end"
PIECE = re.compile(r'"(?:content|text)": ?("(?:[^"\\]|\\.)*")')
MOST_GROWTH = 12_000_000  # bytes of a worker over the run; tables of links fill meanwhile


def weather(draw: random.Random) -> list[tuple[int, str]]:
    """Fair and foul in turns; fair in the end."""
    phases = [
        (draw.randint(1, 40), "ok") if draw.random() < 0.5 else (draw.randint(1, 5), draw.choice(WEATHER))
        for _ in range(400 * TIMES)
    ]
    return [*phases, (0, "ok")]


@dataclass(frozen=True, slots=True)
class Asked:
    number: int
    dialect: str
    stream: bool
    breaks: str  # how its answer breaks off, whoever gives it
    leaves: bool
    late: bool
    checked: str  # what is asked for in JSON, and is answered so: valid | text; "": nothing is

    @property
    def end(self) -> str:
        """Of its answer, if that is whole."""
        return f'{{"number": {self.number}}}' if self.checked == "valid" else f" {self.number}{ENDS_HERE}"


@dataclass(frozen=True, slots=True)
class Got:
    asked: Asked
    answer: RawAnswer | None  # None: the client left before its head was read

    @property
    def id(self) -> str:
        return self.answer.get("x-tollgate-request-id") if self.answer is not None else ""

    @property
    def whole(self) -> bool:
        return self.answer is not None and self.answer.status == 200 and self.answer.complete


def drawn(draw: random.Random, number: int) -> Asked:
    breaks = draw.choice(IN_THE_MIDDLE) if draw.random() < BREAKING else ""
    late = draw.random() < LATE
    checked = draw.choice(("valid", "text")) if draw.random() < CHECKED else ""
    return Asked(number, draw.choice(DIALECTS), draw.random() < 0.6, breaks, draw.random() < LEAVING, late, checked)


def request_of(asked: Asked) -> bytes:
    words = "" if asked.checked == "valid" else " ".join(f"word{n}" for n in range(30))
    broken = f" [[fault {asked.breaks} after=5 seconds=2]]" if asked.breaks else ""
    late = f" [[wait {LATENESS}]]" if asked.late else ""
    text = f"[[say {words}{asked.end}]]{broken}{late}"
    model = f"checked-{asked.dialect}" if asked.checked else MODELS[asked.dialect]
    body: dict[str, Any] = {"model": model, "max_tokens": 200, "messages": [{"role": "user", "content": text}]}
    path = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}.get(asked.dialect, "")
    if asked.dialect == "gemini":
        path = f"/v1beta/models/{model}:{'streamGenerateContent?alt=sse' if asked.stream else 'generateContent'}"
        body = {"contents": [{"parts": [{"text": text}]}]}
        if asked.checked:
            body["generationConfig"] = {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}
    elif asked.stream:
        body["stream"] = True
    if asked.checked and asked.dialect == "openai":
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    elif asked.checked and asked.dialect == "anthropic":
        body["output_config"] = {"format": {"type": "json_schema", "schema": SCHEMA}}
    return post(f"/run/chaos-{asked.number % 40}{path}", json.dumps(body).encode(), b"anthropic-version: 2023-06-01")


def play(port: int, asked: Asked) -> Got:
    with RawClient(port, timeout=30) as client:
        client.send(request_of(asked))
        if asked.leaves:
            try:
                head = client.until(b"\r\n\r\n")
            except NoAnswer:
                return Got(asked, None)
            client.reset()
            lines = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
            return Got(asked, RawAnswer(0, b"", [(name, value.strip()) for name, _, value in lines]))
        return Got(asked, client.answer())


def said(body: bytes) -> str:
    """The text of an answer, of its pieces where it is a stream."""
    return "".join(json.loads(piece) for piece in PIECE.findall(body.decode(errors="replace")))


@dataclass(slots=True)
class Storm:
    gate: RunningGateway
    providers: list[FaultyProvider]
    backup: FakeUpstream
    got: list[Got]
    calls: dict[str, dict[str, Any]]
    before: dict[int, Size]

    def received(self) -> int:
        """Requests that reached an upstream."""
        return sum(len(one.played) for one in self.providers) + len(self.backup.requests)


def cascade(dialect: str) -> dict[str, Any]:
    """Cheap first; what is not JSON then is asked of two others."""
    places = [(CHEAP[dialect], dialect), (MODELS[dialect], f"{dialect}-second"), (MODELS[dialect], f"{dialect}-backup")]
    to = [{"model": model, "upstream": upstream} for model, upstream in places]
    return {"model": f"checked-{dialect}", "to": to, "cascade": {}, "sticky": False}


HEDGING = {"enabled": True, "share": 1, "quantile": 0.9, "sample": 10, "least": 0.05}


@pytest.fixture(scope="module", params=[{"enabled": False}, HEDGING], ids=["one at a time", "hedged"])
def storm(request: pytest.FixtureRequest) -> Iterator[Storm]:
    draw = random.Random(SEED)
    asked = [drawn(draw, number) for number in range(CALLS)]
    first, second = (FaultyProvider(weather(draw), seed=n) for n in (1, 2))
    with Background(first), Background(second), FakeUpstream(3) as backup:
        upstreams: dict[str, Any] = {}
        for dialect in DIALECTS:
            for name, url in (("first", first.url), ("second", second.url), ("backup", backup.url)):
                known = {"dialect": dialect, "url": url, "timeouts": TIMEOUTS, "key": "sk-of-the-gateway"}
                provider = {"gemini": "google"}.get(dialect, dialect)
                upstreams[dialect if name == "first" else f"{dialect}-{name}"] = {**known, "provider": provider}
        gate = RunningGateway(
            upstreams,
            routes=[cascade(one) for one in DIALECTS],
            fallbacks=[{"upstream": one, "to": [f"{one}-second", f"{one}-backup"]} for one in DIALECTS],
            breakers={"pause": 0.05, "longest": 0.1, "consecutive": 4, "window": 2},
            retries={"base": 0.01, "longest": 0.1},
            hedging=request.param,
            budgets=[{"scope": "global", "usd": 1000, "per": "month"}],
            workers=2,
            telemetry={"log": None},
            identity={"links": 4096},
        )
        with gate:
            before = gate.until(  # of workers that have begun: until then a worker has one thread, and is small
                lambda: {pid: size_of(pid) for pid in gate.pids("gateway.worker")},
                lambda known: len(known) == 2 and all(size.threads > 1 for size in known.values()),
            )
            port = int(gate.config["listen"].rpartition(":")[2])
            with ThreadPoolExecutor(CLIENTS) as pool:
                got = list(pool.map(lambda one: play(port, one), asked))
            gate.until(gate.in_flight, lambda count: count == 0, 30)
            calls = gate.calls(CALLS, seconds=60)
            yield Storm(gate, [first, second], backup, got, {call["id"]: call for call in calls}, before)


def test_every_call_is_recorded_exactly_once(storm: Storm) -> None:
    assert len(storm.calls) == CALLS
    seen = Counter(got.id for got in storm.got if got.answer is not None)
    assert "" not in seen
    assert max(seen.values()) == 1
    assert set(seen) <= set(storm.calls)


def test_a_whole_answer_is_whole_and_a_cut_one_says_so(storm: Storm) -> None:
    whole = Counter[str]()
    for got in storm.got:
        answer, asked = got.answer, got.asked
        if answer is None or asked.leaves:
            continue
        call = storm.calls[got.id]
        if got.whole:
            assert said(answer.body).endswith(asked.end), (asked, call, answer.body[-300:])
            assert not asked.stream or TERMINAL[asked.dialect] in answer.body
            assert (call["status"], call["outcome"]) == (200, "ok"), (asked, call)
            whole[asked.dialect] += 1
        elif answer.status == 200:
            assert call["outcome"] == "truncated", (asked, call)
            assert not asked.stream or b"error" in answer.body, "the client is told in its dialect"
        else:
            assert answer.complete
            assert (call["status"], call["outcome"] == "ok") == (answer.status, False), (asked, call)
            assert json.loads(answer.body)["error"]
    assert min(whole[dialect] for dialect in DIALECTS) > CALLS * 0.2, whole


def test_nearly_all_succeed_where_a_backup_is_well(storm: Storm) -> None:
    fair = [got for got in storm.got if not got.asked.breaks and not got.asked.leaves]
    lost = [got for got in fair if not got.whole]
    before_content = [got for got in lost if got.answer is not None and got.answer.status != 200]
    assert len(before_content) <= len(fair) // 1000, Counter(got.answer.status for got in before_content if got.answer)
    assert len(lost) < len(fair) * 0.1, "what breaks behind its first byte cannot be healed"


def test_what_has_not_the_form_that_was_demanded_is_asked_of_others(storm: Storm) -> None:
    whole = [(got.asked, storm.calls[got.id]) for got in storm.got if got.whole and not got.asked.leaves]
    assert not any("cascade" in call["notes"] for asked, call in whole if not asked.checked)
    dear = 0
    for asked, call in whole:
        verdicts = call["notes"].get("cascade", "").split(",")
        withheld = [attempt for attempt in call["attempts"] if attempt["error_code"] == "unverified"]
        if asked.checked == "valid":
            assert verdicts[-1] == "ok"
            assert not withheld
        elif asked.checked:
            assert set(verdicts) == {"json"}, call
            assert len(withheld) >= len(verdicts) - 1
            assert len(withheld) == len({(one["upstream"], one["model"]) for one in withheld})
            dear += call["attempts"][-1]["model"] == MODELS[asked.dialect]
    assert dear > CALLS * CHECKED * 0.3


def test_a_probe_is_not_waited_for(storm: Storm) -> None:
    results = Counter(call["notes"]["probe"] for call in storm.calls.values() if "probe" in call["notes"])
    assert results["won"] > 10, results
    assert set(results) <= {"won", "lost", "failed", "refused"}


def test_hedges_are_made_where_they_are_asked_for(storm: Storm) -> None:
    results = Counter(call["notes"]["hedge"] for call in storm.calls.values() if "hedge" in call["notes"])
    if not storm.gate.config["hedging"]["enabled"]:
        assert not results
        return
    late = sum(asked.asked.late for asked in storm.got)
    assert results["won"] + results["lost"] + results["failed"] > late * 0.3, results
    assert {one for one in storm.providers if one.played.count("ok") > CALLS * 0.02} == set(storm.providers)
    for call in storm.calls.values():
        overtaken = [attempt for attempt in call["attempts"] if attempt["error_code"] == "overtaken"]
        assert len(overtaken) <= len(call["attempts"]) - (call["outcome"] == "ok")
        if call["notes"].get("hedge") in ("won", "lost") and call["outcome"] == "ok":
            assert call["attempts"][-1]["status"] == 200


def test_money_adds_up(storm: Storm) -> None:
    total = 0.0
    for call in storm.calls.values():
        assert call["cost_usd"] is not None, call
        assert call["cost_usd"] == pytest.approx(sum(call["cost_components"].values()), abs=1e-9), call
        failed = sum(attempt["cost_usd"] or 0 for attempt in call["attempts"][:-1])
        parts = call["cost_components"]
        beside = parts.get("hedged_attempts", 0)
        assert parts.get("failed_attempts", 0) + beside == pytest.approx(failed, abs=1e-9)
        total += call["cost_usd"]
    runs = storm.gate.get("/api/runs", limit=100)["runs"]
    assert sum(run["cost_usd"] for run in runs) == pytest.approx(total, abs=1e-6)


def test_budgets_hold_nothing_back_and_doubt_is_charged(storm: Storm) -> None:
    gate = storm.gate
    (budget,) = gate.until(lambda: gate.get("/api/budgets")["budgets"], lambda found: not found[0]["reserved"])
    sure = [call for call in storm.calls.values() if len(call["attempts"]) == 1 and call["usage_source"] == "provider"]
    assert len(sure) > CALLS * 0.2
    assert budget["spent"] >= sum(call["cost_usd"] for call in storm.calls.values()) - 1e-6


def test_what_was_sent_is_what_is_recorded(storm: Storm) -> None:
    attempts = sum(len(call["attempts"]) for call in storm.calls.values())
    assert attempts == pytest.approx(storm.received(), rel=0.02), "a connection that just ended may be tried again"
    answered = sum(call["usage_source"] == "provider" for call in storm.calls.values())
    assert answered > CALLS * 0.5
    for got in storm.got:
        if got.whole and got.answer is not None and got.asked.dialect == "openai" and not got.asked.stream:
            usage, call = json.loads(got.answer.body)["usage"], storm.calls[got.id]
            assert (usage["prompt_tokens"], usage["completion_tokens"]) == (
                call["usage"]["input_tokens"],
                call["usage"]["output_tokens"],
            )


def test_nothing_leaks(storm: Storm) -> None:
    assert set(storm.before) == set(storm.gate.pids("gateway.worker")), "no worker died"
    assert "Traceback" not in storm.gate.log
    for pid, size in storm.before.items():
        storm.gate.until(
            lambda pid=pid: size_of(pid).descriptors, lambda count, size=size: count <= size.descriptors + 40
        )  # type: ignore[misc]
        assert size_of(pid).threads <= size.threads + 1
        assert size_of(pid).resident - size.resident < MOST_GROWTH * TIMES**0.5
