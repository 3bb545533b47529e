"""Runs and keys as an agent meets them: limits of a run, budgets by header and URL, virtual keys, kills, loops."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway
from tests.e2e.conftest import upstreams
from tests.e2e.money import Answer, Waiting, ask, asked_of, prices, request_of, send, spend, under_way, until
from tests.soon import soon

MODEL = "run-model"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
LOOPS = {"repeats": 3, "downshift_to": {"at": 0, "max_tokens": 7}}


def settings(**more: Any) -> dict[str, Any]:
    return {
        "prices": prices(MODEL, "run-cheap"),
        "runs": {"budget_usd": 0.01, "on_exceed": "queue"},
        "spending": {"queue_seconds": 4},
        "telemetry": {"log": None},
        **more,
    }


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeUpstream]:
    """One whose clock goes: what runs in the background comes to its end."""
    with FakeUpstream(11) as running:
        yield running


@pytest.fixture(scope="module")
def house(fake: FakeUpstream) -> Iterator[RunningGateway]:
    with RunningGateway(upstreams(fake.url), **settings()) as running:
        yield running


def of_run(gate: RunningGateway, run: str, text: str = "[[tokens 5]]", most: int | None = 50, **more: Any) -> Answer:
    return ask(gate, "chat", MODEL, text, most, prefix=f"/run/{run}", **more)


def limit(gate: RunningGateway, run: str, limits: dict[str, Any]) -> None:
    """Limit one run, as `tollgate run` does."""
    request = urllib.request.Request(
        f"{gate.admin_url}/api/runs/{run}/limits", json.dumps(limits).encode(), {"content-type": "application/json"},
        method="PUT",
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert json.loads(answer.read())["in_force"]


# -- limits of one run -----------------------------------------------------------------------------------------------


def test_every_run_has_its_own_budget(house: RunningGateway) -> None:
    refusal = spend(house, MODEL, text="[[tokens 100]]", most=110, prefix="/run/own-1")
    assert (refusal.status, refusal.message[:28]) == (402, "The budget of run own-1 is $")
    assert of_run(house, "own-2").status == 200


def test_max_calls(house: RunningGateway) -> None:
    limit(house, "three", {"max_calls": 3})
    assert [of_run(house, "three").status for _ in range(4)] == [200, 200, 200, 402]
    assert "The limit of run three is 3 calls: 3 spent" in of_run(house, "three").message


def test_max_steps(house: RunningGateway) -> None:
    limit(house, "steps", {"max_steps": 2})
    assert [of_run(house, "steps").status for _ in range(3)] == [200, 200, 402]


def test_refused_calls_do_not_count_as_calls(house: RunningGateway) -> None:
    limit(house, "four", {"max_calls": 2})
    assert of_run(house, "four", most=5000).status == 402  # too dear
    assert [of_run(house, "four").status for _ in range(3)] == [200, 200, 402]


def conversation(*results: str) -> list[dict[str, Any]]:
    """A chat in which a tool was called once for each result."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "look around"}]
    for number, result in enumerate(results):
        call = {"id": f"call_{number}", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{number}", "content": result},
        ]
    return messages


def talk(gate: RunningGateway, run: str, *results: str, most: int = 20, **more: Any) -> Answer:
    return of_run(gate, run, most=most, messages=conversation(*results), tools=[TOOL], **more)


def work(gate: RunningGateway, run: str, rounds: int) -> list[Answer]:
    """An agent that does what it is told: each answer asks for a tool, and its result comes with the next request."""
    script = "[[then]]".join([f'[[tool look {{"at": {n}}}]]' for n in range(rounds)])
    messages: list[dict[str, Any]] = [{"role": "user", "content": script}]
    answers = []
    for _ in range(rounds):
        answers.append(of_run(gate, run, messages=messages, tools=[TOOL]))
        if answers[-1].status != 200:
            break
        message = answers[-1].json["choices"][0]["message"]
        results = [{"role": "tool", "tool_call_id": c["id"], "content": "ok"} for c in message["tool_calls"]]
        messages += [message, *results]
    return answers


def test_max_tools(house: RunningGateway) -> None:
    """Results are counted once, when they are brought; not again as history."""
    limit(house, "tools", {"max_tools": 2})
    answers = work(house, "tools", 6)
    assert [answer.status for answer in answers] == [200, 200, 200, 402]
    assert "2 tool results" in answers[-1].message


def test_max_minutes(house: RunningGateway) -> None:
    limit(house, "brief", {"max_minutes": 1 / 60})
    assert of_run(house, "brief").status == 200
    time.sleep(1.1)
    refusal = of_run(house, "brief")
    assert (refusal.status, refusal.headers["x-should-retry"]) == (402, "false")
    assert "1 seconds since its first call" in refusal.message


def test_max_depth(house: RunningGateway) -> None:
    limit(house, "deep", {"max_depth": 1})
    agents = [
        {},
        {"x-claude-code-agent-id": "a"},
        {"x-claude-code-agent-id": "b", "x-claude-code-parent-agent-id": "a"},
    ]
    answers = [of_run(house, "deep", headers={"x-claude-code-session-id": "deep", **who}) for who in agents]
    assert [answer.status for answer in answers] == [200, 200, 402]
    assert "1 levels of sub-agents; this call is made at level 2" in answers[-1].message


# -- budgets that the client sets ------------------------------------------------------------------------------------


def test_a_client_tightens_its_run_by_header(house: RunningGateway) -> None:
    own = {"x-tollgate-budget-usd": "0.003"}
    refusal = spend(house, MODEL, text="[[tokens 30]]", most=40, prefix="/run/header", headers=own)
    assert refusal.status == 402
    assert "is $0.003:" in refusal.message
    assert of_run(house, "header", most=40).status == 200  # the header was of those calls


def test_a_client_cannot_loosen_it(house: RunningGateway) -> None:
    refusal = of_run(house, "loose", most=900, headers={"x-tollgate-budget-usd": "100"})
    assert refusal.status == 402
    assert "is $0.01:" in refusal.message


@pytest.mark.parametrize("prefix", ["/budget/0.003/run/url-a", "/run/url-b/budget/0.003"])
def test_a_client_tightens_its_run_by_url(house: RunningGateway, fake: FakeUpstream, prefix: str) -> None:
    refusal = spend(house, MODEL, text="[[tokens 30]]", most=40, prefix=prefix)
    assert refusal.status == 402
    assert "is $0.003:" in refusal.message
    assert {one.target for one in asked_of(fake, MODEL)} == {"/v1/chat/completions"}


@pytest.mark.parametrize("value", ["-1", "1e3", "abc", "NaN", "", "0x1"])
def test_a_budget_that_is_no_amount(house: RunningGateway, value: str) -> None:
    answer = of_run(house, "odd", headers={"x-tollgate-budget-usd": value})
    assert answer.status == (200 if value == "" else 400)


def test_nothing_of_ours_reaches_the_upstream(house: RunningGateway, fake: FakeUpstream) -> None:
    of_run(house, "ours", "[[tokens 5]] not-ours", headers={"x-tollgate-budget-usd": "0.005"})
    (sent,) = asked_of(fake, "not-ours")
    assert not [name for name, _ in sent.headers if name.lower().startswith(b"x-tollgate")]


# -- people decide ---------------------------------------------------------------------------------------------------


def test_kill_and_resume(house: RunningGateway) -> None:
    assert of_run(house, "mortal").status == 200
    house.post("/api/runs/mortal/kill", {"reason": "too chatty", "by": "ann"})
    refusal = of_run(house, "mortal")
    assert (refusal.status, refusal.error["tollgate_code"]) == (402, "run_stopped")
    assert "too chatty" in refusal.message
    house.post("/api/runs/mortal/resume", {})
    assert of_run(house, "mortal").status == 200


def test_a_kill_reaches_a_stream_under_way(house: RunningGateway, fake: FakeUpstream) -> None:
    def take(number: int) -> float:
        text, run = "[[fault stall after=3]] kill-stream", f"flow-{number}"
        stream = Waiting(house, "chat", MODEL, text, 50, stream=True, prefix=f"/run/{run}")
        stream.client.until(b"data: ")
        began = time.monotonic()
        house.post(f"/api/runs/{run}/kill", {"reason": "enough"})
        rest = stream.answer_rest()
        late = time.monotonic() - began
        assert b"run_stopped" in rest
        assert b"[DONE]" not in rest
        return late

    soon(take, 1)
    house.until(lambda: asked_of(fake, "kill-stream")[0].ended, lambda ended: ended == "client_gone")


def test_a_raise_lets_a_waiting_call_go(house: RunningGateway, fake: FakeUpstream) -> None:
    first = Waiting(house, "chat", MODEL, "[[wait 60]] raise-1", 200, prefix="/run/raised")
    under_way(fake, "raise-1")
    second = Waiting(house, "chat", MODEL, "[[tokens 5]] raise-2", 200, prefix="/run/raised")
    time.sleep(0.1)
    assert not asked_of(fake, "raise-2")
    house.post("/api/runs/raised/raise", {"budget_usd": 0.05})
    answer = second.answer()
    assert answer.status == 200
    first.leave()


def test_a_raise_lets_the_next_call_go_and_counts_what_is_spent(house: RunningGateway) -> None:
    refusal = spend(house, MODEL, text="[[tokens 100]]", most=110, prefix="/run/more")
    spent = float(re.search(r"\$(0\.\d+) spent", refusal.message)[1])  # type: ignore[index]
    house.post("/api/runs/more/raise", {"budget_usd": 0.02})
    answer = of_run(house, "more", most=100)
    assert answer.status == 200
    assert float(answer.headers["x-tollgate-run-cost-usd"]) == pytest.approx(spent, abs=2e-6)


# -- background and chains -------------------------------------------------------------------------------------------


def test_a_background_response_is_held_and_not_charged_twice(house: RunningGateway) -> None:
    """What it will cost is charged as its worst case when it starts; fetching it charges no budget again."""
    prefix = "/run/background"
    started = ask(house, "responses", MODEL, "[[tokens 20]]", 60, prefix=prefix, background=True)
    assert started.status == 200, started.raw
    before = of_run(house, "background", most=1, text="[[tokens 1]]")
    assert before.remaining < 0.01 - 60 * 40e-6
    id = started.json["id"]
    port_request = request_of("responses", MODEL).replace(b"POST /v1/responses", b"GET /v1/responses/%b" % id.encode())
    get = port_request.partition(b"\r\nContent-Type")[0] + b"\r\n\r\n"
    with_run = get.replace(b"GET /v1", b"GET /run/background/v1")
    done = until(lambda: found if (found := send(house, with_run)).json["status"] == "completed" else None)
    assert done.json["usage"]["output_tokens"] == 20
    after = of_run(house, "background", most=1, text="[[tokens 1]]")
    cost = float(before.headers["x-tollgate-cost-usd"])
    assert before.remaining - after.remaining == pytest.approx(cost, abs=2e-6)


def test_a_chain_of_responses_is_held_with_its_history(house: RunningGateway) -> None:
    """The body is short, but the provider reads all that went before it: that is held, too."""
    house.post("/api/runs/chain/raise", {"budget_usd": 5})
    long = "word " * 4000
    first = ask(house, "responses", MODEL, long + "[[tokens 5]]", 20, prefix="/run/chain", store=True)
    assert first.status == 200, first.raw
    known = first.json["usage"]
    history = known["input_tokens"] + known["output_tokens"]
    assert history > 3000
    house.post("/api/runs/chain/raise", {"budget_usd": history * 1e-6 * 1.9})
    refusal = ask(house, "responses", MODEL, "on", 1, prefix="/run/chain", previous_response_id=first.json["id"])
    assert refusal.status == 402
    needed = float(re.search(r"may need \$(0\.\d+)", refusal.message)[1])  # type: ignore[index]
    assert history * 1e-6 <= needed <= history * 1e-6 + 0.001


# -- virtual keys ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(fake: FakeUpstream) -> Iterator[RunningGateway]:
    """A gate with keys of its own upstream of it, and virtual ones before it."""
    ours = {name: {**one, "key": f"sk-of-{name}"} for name, one in upstreams(fake.url).items()}
    ours["second"] = {**ours["openai"], "key": "sk-of-second"}
    with RunningGateway(ours, **settings(runs={})) as running:
        running.post("/api/keys", {"name": "first"})
        until(lambda: ask(running, "chat", MODEL).status == 401)
        yield running


def new_key(gate: RunningGateway, name: str, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = gate.post("/api/keys", {"name": name, **more})
    until(lambda: of_key(gate, made["secret"]).status != 401)
    return made


def of_key(gate: RunningGateway, secret: str, model: str = MODEL, form: str = "chat", **more: Any) -> Answer:
    return ask(gate, form, model, more.pop("text", "[[tokens 5]]"), more.pop("most", 50),
               headers={"authorization": f"Bearer {secret}", **more.pop("headers", {})}, **more)  # fmt: skip


def test_unknown_keys_are_all_answered_alike(locked: RunningGateway) -> None:
    known = locked.get("/api/keys")["keys"][0]["id"]
    made_up = ["", "sk-123", "tg-", f"tg-{known}-" + "x" * 43, "tg-00000000-" + "x" * 43]
    answers = [of_key(locked, secret) for secret in made_up]
    assert {answer.status for answer in answers} == {401}
    assert len({answer.message for answer in answers}) == 1
    assert answers[0].error["type"] == "authentication_error"


def test_a_key_is_never_sent_on(locked: RunningGateway, fake: FakeUpstream) -> None:
    secret = new_key(locked, "sent")["secret"]
    for form, names in (("chat", "authorization"), ("messages", "x-api-key"), ("gemini", "x-goog-api-key")):
        headers = {names: f"Bearer {secret}" if names == "authorization" else secret}
        assert ask(locked, form, MODEL, f"[[tokens 5]] sent-{form}", 50, headers=headers).status == 200
    sent = [one for form in ("chat", "messages", "gemini") for one in asked_of(fake, f"sent-{form}")]
    assert len(sent) == 3
    for one in sent:
        assert secret.encode() not in one.body + one.target.encode() + b"".join(v for _, v in one.headers)
        assert any(b"sk-of-" in value for _, value in one.headers)


def test_a_disabled_key(locked: RunningGateway) -> None:
    made = new_key(locked, "disabled")
    locked.post(f"/api/keys/{made['id']}/disable", {})
    refusal = until(lambda: found if (found := of_key(locked, made["secret"])).status == 401 else None)
    assert "is disabled" in refusal.message


def test_an_expired_key(locked: RunningGateway) -> None:
    made = new_key(locked, "brief", expires_in_seconds=1)
    refusal = until(lambda: found if (found := of_key(locked, made["secret"])).status == 401 else None)
    assert "has expired" in refusal.message


def test_a_rotated_key(locked: RunningGateway) -> None:
    made = new_key(locked, "rotated")
    fresh = locked.post(f"/api/keys/{made['id']}/rotate", {"overlap_seconds": 0})["secret"]
    assert fresh != made["secret"]
    until(lambda: of_key(locked, fresh).status == 200)
    until(lambda: of_key(locked, made["secret"]).status == 401)


@pytest.mark.parametrize(
    ("rights", "asked", "code"),
    [
        ({"models": ["other-*"]}, {}, "model_not_allowed"),
        ({"upstreams": ["anthropic"]}, {}, "upstream_not_allowed"),
        ({"upstreams": ["openai"]}, {"prefix": "/second"}, "upstream_not_allowed"),
        ({"tools": ["read_*"]}, {"tools": [TOOL]}, "tool_not_allowed"),
        ({"tools": []}, {"form": "messages", "tools": [{"type": "web_search_20250305", "name": "web_search"}]},
         "tool_not_allowed"),
        ({"operations": ["embeddings"]}, {}, "operation_not_allowed"),
        ({"may_limit_runs": False}, {"headers": {"x-tollgate-budget-usd": "1"}}, "budget_not_allowed"),
        ({"may_limit_runs": False}, {"prefix": "/budget/1/run/x"}, "budget_not_allowed"),
    ],
)  # fmt: skip
def test_what_a_key_does_not_allow(
    locked: RunningGateway, fake: FakeUpstream, rights: dict[str, Any], asked: dict[str, Any], code: str
) -> None:
    name = f"k{abs(hash(json.dumps([rights, asked])))}"
    secret = new_key(locked, name, **rights)["secret"]
    answer = of_key(locked, secret, text=f"mark-{name}", **asked)
    assert answer.status == 403
    assert code in answer.raw.decode()
    assert not asked_of(fake, f"mark-{name}")


def test_a_key_brings_its_own_limits(locked: RunningGateway) -> None:
    secret = new_key(locked, "poor", budgets=[{"usd": 0.006, "per": "day"}])["secret"]
    answers = [of_key(locked, secret, text="[[tokens 90]]", most=100) for _ in range(4)]
    assert [a.status for a in answers][-1] == 402
    assert "The budget of key poor, per day is $0.006" in answers[-1].message
    assert of_key(locked, new_key(locked, "rich")["secret"]).status == 200
    fast = new_key(locked, "fast", rpm=6, burst=3)["secret"]
    assert [of_key(locked, fast).status for _ in range(4)].count(429) >= 1


def test_a_kill_by_key_and_by_team(locked: RunningGateway) -> None:
    secret = new_key(locked, "of-team", team="blue")["secret"]
    for scope, value in (("key", "of-team"), ("team", "blue")):
        locked.post("/api/kill", {"scope": scope, "value": value, "reason": f"by {scope}"})
        assert f"by {scope}" in of_key(locked, secret).message
        locked.post("/api/resume", {"scope": scope, "value": value})
        assert of_key(locked, secret).status == 200


def test_the_sdk_of_a_key_without_money_stops_at_once(locked: RunningGateway) -> None:
    secret = new_key(locked, "broke", budgets=[{"usd": 0.0005, "per": "life"}])["secret"]
    with openai.OpenAI(base_url=f"{locked.url}/v1", api_key=secret, max_retries=5) as sdk:
        began = time.monotonic()
        with pytest.raises(openai.APIStatusError) as caught:
            sdk.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}], max_tokens=50)
    assert (caught.value.status_code, caught.value.code) == (402, "insufficient_quota")
    assert time.monotonic() - began < 4  # five retries take more than ten seconds


# -- runaways --------------------------------------------------------------------------------------------------------


def circle(gate: RunningGateway, run: str, rounds: int = 7) -> list[Answer]:
    """An agent that asks the same of the same tool, again and again, and gets the same."""
    return [talk(gate, run, *(["nothing here"] * n), most=40) for n in range(rounds)]


@pytest.mark.parametrize("action", ["note", "warn", "downshift", "stop"])
def test_a_loop_is_acted_upon(fake: FakeUpstream, action: str) -> None:
    loops = {**LOOPS, "repeated_call": action, "no_new_information": "off", "cycle": "off"}
    with RunningGateway(upstreams(fake.url), **settings(runs={}, loops=loops)) as gate:
        run = f"loop-{action}"
        answers = circle(gate, run)
        statuses = {answer.status for answer in answers}
        assert statuses == ({200, 402} if action == "stop" else {200})
        warned = [answer.headers.get("x-tollgate-loop", "") for answer in answers]
        assert any("repeated_call" in text for text in warned) == (action in {"warn", "downshift"})
        noted = [call for call in gate.calls(7, run=run) if call["notes"].get("loop") == "repeated_call"]
        assert noted
        assert {call["notes"]["loop_action"] for call in noted} == {action}
        if action == "downshift":
            assert {call["usage"]["output_tokens"] for call in noted} <= set(range(1, 8))
        if action == "stop":
            assert answers[-1].error["tollgate_code"] == "run_stopped"
            assert "look" in answers[-1].message
            assert of_run(gate, run, "something else").status == 402  # until a person lets it go on
            gate.post(f"/api/runs/{run}/resume", {})
            assert of_run(gate, run, "something else").status == 200
            assert of_run(gate, "another").status == 200


def test_an_honest_agent_is_left_alone(fake: FakeUpstream) -> None:
    loops = {**LOOPS, **dict.fromkeys(("repeated_call", "cycle", "error_ping_pong", "no_new_information"), "stop")}
    with RunningGateway(upstreams(fake.url), **settings(runs={}, loops=loops)) as gate:
        for steps in range(10):
            messages = conversation(*(f"result {n}" for n in range(steps)))
            for number, message in enumerate(m for m in messages if m["role"] == "assistant"):
                message["tool_calls"][0]["function"]["arguments"] = json.dumps({"path": f"file-{number}"})
            answer = of_run(gate, "honest", messages=messages, tools=[TOOL])
            assert answer.status == 200, answer.message
