"""Budgets and limits as a user meets them: what is refused, in which words, what is made to fit, and what waits."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway
from tests.e2e.conftest import upstreams
from tests.e2e.money import FORMS, Waiting, ask, asked_of, body_of, prices, request_of, send, spend, under_way, until
from tests.soon import soon

REFUSED = [f"refuse-{form}" for form in FORMS]
SCOPED = ["scope-any", "scope-model", "scope-up"]
MODELS = [
    *REFUSED,
    *SCOPED,
    *("minute", "rpm", "tpm", "slots", "soon", "clamp", "clamp-floor", "clamp-own", "queue", "queue-bound"),
    *("queue-gone", "queue-kill", "queue-patience", "tokens", "soft", "huge", "emb", "reload"),
]
DOLLAR = 0.01  # of each small budget: 250 tokens of output


def budget(model: str, usd: float = DOLLAR, **more: Any) -> dict[str, Any]:
    return {"scope": "model", "match": model, "usd": usd, "per": "life", **more}


BUDGETS = [
    *(budget(model, per="month") for model in REFUSED),
    budget("scope-model"),
    {"scope": "upstream", "match": "second", "usd": DOLLAR, "per": "life"},
    {"scope": "agent", "match": "poor-*", "usd": DOLLAR, "per": "life"},
    {"scope": "run", "match": "poor-*", "usd": DOLLAR, "per": "life"},
    {"scope": "team", "match": "poor", "usd": DOLLAR, "per": "day"},
    budget("minute", per="minute"),
    budget("huge", per="minute"),
    *(budget(model, on_exceed="clamp") for model in ("clamp", "clamp-floor", "clamp-own")),
    *(budget(m, on_exceed="queue") for m in ("queue", "queue-bound", "queue-gone", "queue-kill", "queue-patience")),
    {"scope": "model", "match": "tokens", "tokens": 1000, "per": "life"},
    budget("soft", soft=True),
    budget("emb", usd=0.0005),
    budget("reload"),
    {"scope": "model", "match": "nobody-knows", "usd": 5, "per": "life"},
]
RATES = [
    {"scope": "model", "match": "rpm", "rpm": 6, "burst": 2},
    {"scope": "model", "match": "tpm", "tpm": 700},
    {"scope": "model", "match": "slots", "concurrency": 1},
]


def settings(**more: Any) -> dict[str, Any]:
    return {
        "prices": prices(*MODELS),
        "budgets": BUDGETS,
        "limits": {"rates": RATES},
        "spending": {"clamp_floor": 16, "queue_seconds": 3, "output_ceiling": 200},
        "identity": {"tenant_header": "x-team"},
        "telemetry": {"log": None},
        **more,
    }


@pytest.fixture(scope="module")
def house(fake: FakeUpstream) -> Iterator[RunningGateway]:
    second = {"second": {"dialect": "openai", "url": fake.url, "provider": "openai"}}
    with RunningGateway({**upstreams(fake.url), **second}, **settings()) as running:
        yield running


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [form for form in FORMS if form != "embeddings"])
def test_what_does_not_fit_is_refused_in_the_words_of_its_dialect(house: RunningGateway, fake: Any, form: str) -> None:
    """402, not to be tried again, naming scope, limit, spent and when it resets; nothing reaches the upstream."""
    model = f"refuse-{form}"
    first = ask(house, form, model, "[[tokens 100]] go on", 150)
    assert first.status == 200, first.raw
    before = len(asked_of(fake, model))
    answer = ask(house, form, model, "[[tokens 100]] go on", 150)
    assert answer.status == 402
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers
    assert len(asked_of(fake, model)) == before
    error = answer.error
    if form == "messages":
        assert (answer.json["type"], error["type"]) == ("error", "billing_error")
        assert error["details"]["error_code"] == "budget_exceeded"
    elif form.startswith("gemini"):
        assert (error["code"], error["status"]) == (402, "RESOURCE_EXHAUSTED")
    else:
        assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
        assert error["tollgate_code"] == answer.headers["x-tollgate-code"] == "budget_exceeded"
    found = re.fullmatch(
        rf"The budget of model {model}, per month is \$0\.01: \$(0\.\d+) spent; this call may need \$(0\.\d+)\. "
        r"It resets at 20\d\d-\d\d-01T00:00:00Z\.",
        answer.message,
    )
    assert found, answer.message
    assert 0.004 < float(found[1]) < 0.005 < 0.006 < float(found[2])
    (call,) = [c for c in house.until(lambda: house.get("/api/calls")["calls"], lambda c: recorded(c, answer))
               if c["id"] == answer.headers["x-tollgate-request-id"]]  # fmt: skip
    assert (call["outcome"], call["error"]["code"], call["attempts"]) == ("refused", "budget_exceeded", [])
    assert call["notes"]["budget"] == "refused"


def recorded(calls: list[dict[str, Any]], answer: Any) -> bool:
    return any(call["id"] == answer.headers["x-tollgate-request-id"] for call in calls)


def test_reserved_stands_in_the_message(house: RunningGateway, fake: Any) -> None:
    slow = Waiting(house, "chat", "scope-any", "[[wait 5]] held-1", 200, prefix="/run/poor-held")
    under_way(fake, "held-1")
    answer = ask(house, "chat", "scope-any", "x", 200, prefix="/run/poor-held")
    assert answer.status == 402
    assert "The budget of run poor-held is $0.01: $0.00 spent and $0.008" in answer.message
    assert "reserved by calls under way" in answer.message
    slow.leave()


def test_a_window_that_ends_soon_answers_429(house: RunningGateway) -> None:
    refusal = spend(house, "minute", text="[[tokens 150]]", most=160)
    if refusal.status == 402:  # the minute ended between two calls: nothing is wrong with that
        refusal = spend(house, "minute", text="[[tokens 150]]", most=160)
    assert refusal.status == 429
    seconds = refusal.headers["retry-after"]
    assert seconds.isdecimal()
    assert 1 <= int(seconds) <= 60
    assert refusal.message.endswith(f"Please try again in {seconds}s.")
    assert refusal.message.lower().count("try again") == 1
    assert refusal.headers.get("x-should-retry") != "false"


def test_what_asks_for_more_than_the_whole_window_is_not_told_to_wait(house: RunningGateway) -> None:
    """However long it waits, it will never fit: 402, not 429."""
    answer = ask(house, "chat", "huge", "x", 1000)
    assert (answer.status, answer.headers["x-should-retry"]) == (402, "false")


def test_requests_per_minute(house: RunningGateway) -> None:
    assert [ask(house, "chat", "rpm").status for _ in range(3)] == [200, 200, 429]
    refusal = ask(house, "messages", "rpm")
    assert refusal.status == 429
    assert refusal.error["type"] == "rate_limit_error"
    assert refusal.headers["retry-after"] in {"9", "10"}


def test_tokens_per_minute(house: RunningGateway) -> None:
    """Held by the worst case, settled to the truth: what was not used is there again at once."""
    first = ask(house, "chat", "tpm", "[[tokens 5]]", 200)
    assert first.status == 200
    assert ask(house, "chat", "tpm", "[[tokens 5]]", 200).status == 200
    assert ask(house, "chat", "tpm", "[[tokens 150]]", 200).status == 200
    refusal = ask(house, "chat", "tpm", "[[tokens 5]]", 200)
    assert refusal.status == 429
    assert 1 <= int(refusal.headers["retry-after"]) <= 60
    assert ask(house, "chat", "tpm", "x", 900).status == 402  # more than a whole minute's


def test_calls_at_once(house: RunningGateway, fake: Any) -> None:
    slow = Waiting(house, "chat", "slots", "[[wait 5]] slot-1", 10)
    under_way(fake, "slot-1")
    refusal = ask(house, "chat", "slots")
    assert refusal.status == 429
    assert refusal.headers["retry-after"].isdecimal()
    assert "1 calls at once" in refusal.message
    slow.leave()
    until(lambda: ask(house, "chat", "slots").status == 200)


def test_a_limit_on_calls_alone_never_cuts_an_answer(house: RunningGateway) -> None:
    """Without a budget in money or tokens, a stream may be longer than the ceiling that is assumed for it."""
    answer = ask(house, "chat", "slots", "[[tokens 400]]", None, stream=True)
    assert answer.status == 200
    assert b'"finish_reason":"stop"' in answer.raw


def test_tokens_are_a_budget_too(house: RunningGateway) -> None:
    refusal = spend(house, "tokens", text="[[tokens 90]]", most=100)
    assert refusal.status == 402
    found = re.search(r"is 1000 tokens: (\d+) tokens spent; this call may need (\d+) tokens\.", refusal.message)
    assert found, refusal.message
    assert int(found[1]) <= 1000 < int(found[1]) + int(found[2])


# -- scopes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "named"),
    [
        ({"model": "scope-model"}, "model scope-model"),
        ({"prefix": "/second"}, "upstream second"),
        ({"prefix": "/agent/poor-bot"}, "agent poor-bot"),
        ({"prefix": "/run/poor-run"}, "run poor-run"),
        ({"headers": {"x-team": "poor"}}, "team poor, per day"),
    ],
)
def test_each_scope_refuses_by_itself(house: RunningGateway, who: dict[str, Any], named: str) -> None:
    options = dict(who)
    model = options.pop("model", "scope-any")
    refusal = spend(house, model, text="[[tokens 100]]", most=120, **options)
    assert refusal.status == 402
    assert refusal.message.startswith(f"The budget of {named} is $0.01: ")
    assert ask(house, "chat", "scope-any").status == 200  # and nobody else


def test_what_is_left_stands_in_the_headers(house: RunningGateway) -> None:
    """To the micro-dollar: what is left after a call is what was there less what it really cost."""
    first = ask(house, "chat", "scope-any", "[[tokens 20]]", 50, prefix="/run/poor-left")
    cost = float(first.headers["x-tollgate-cost-usd"])
    second = ask(house, "chat", "scope-any", "[[tokens 20]]", 50, prefix="/run/poor-left")
    usage = first.json["usage"]
    assert cost == pytest.approx((usage["prompt_tokens"] + 40 * usage["completion_tokens"]) * 1e-6)
    assert second.remaining == pytest.approx(first.remaining - cost, abs=1.1e-6)
    assert float(second.headers["x-tollgate-run-cost-usd"]) == pytest.approx(cost, abs=1.1e-6)


def test_a_model_without_a_price_is_denied_under_a_budget(house: RunningGateway, fake: Any) -> None:
    answer = ask(house, "chat", "nobody-knows")
    assert answer.status == 402
    assert answer.error["tollgate_code"] == "price_unknown"
    assert "nobody-knows" in answer.message
    assert not asked_of(fake, "nobody-knows")


def test_embeddings_are_held_by_their_input(house: RunningGateway) -> None:
    assert ask(house, "embeddings", "emb", "a few words").status == 200
    refusal = ask(house, "embeddings", "emb", "many words " * 400)
    assert refusal.status == 402
    assert "model emb" in refusal.message


def test_a_soft_budget_holds_what_such_calls_usually_cost(house: RunningGateway) -> None:
    """A hard budget of $0.01 never admits a call that may need $0.008 once $0.002 are spent; a soft one does, as soon
    as enough was seen of this key and model."""
    refused = ask(house, "chat", "soft", "[[tokens 3]]", 300)
    assert refused.status == 402
    assert [ask(house, "chat", "soft", "[[tokens 3]]", 50).status for _ in range(20)] == [200] * 20
    answer = ask(house, "chat", "soft", "[[tokens 3]]", 300)
    assert answer.status == 200
    assert answer.remaining < 0.008


# -- clamp -----------------------------------------------------------------------------------------------------------


def test_clamp_lowers_the_limit_and_not_another_byte(house: RunningGateway, fake: Any) -> None:
    data = request_of("chat", "clamp", "clamp-mark é ☃", 1000, temperature=0.5, unknown_field={"b": 1, "a": [1, 2]})
    answer = send(house, data)
    assert answer.status == 200, answer.raw
    (sent,) = asked_of(fake, "clamp-mark")
    body = data.partition(b"\r\n\r\n")[2]
    most = json.loads(sent.body)["max_tokens"]
    assert 150 < most < 250
    assert sent.body == body.replace(b'"max_tokens": 1000', b'"max_tokens": %d' % most)
    (call,) = house.until(lambda: noted(house, answer), bool)
    assert (call["notes"]["budget"], call["notes"]["clamped_to"]) == ("clamped", str(most))


def noted(gate: RunningGateway, answer: Any) -> list[dict[str, Any]]:
    id = answer.headers["x-tollgate-request-id"]
    return [call for call in gate.get("/api/calls")["calls"] if call["id"] == id]


def test_clamp_sets_a_limit_where_none_was(house: RunningGateway, fake: Any) -> None:
    for number in range(8):
        answer = ask(house, "chat", "clamp-own", f"own-{number} [[tokens 90]]", None)
        assert answer.status == 200, answer.raw
        (sent,) = asked_of(fake, f"own-{number}")
        most = json.loads(sent.body).get("max_tokens") or json.loads(sent.body).get("max_completion_tokens")
        if most is not None:
            break
    assert 16 <= most < 200
    assert answer.json["usage"]["completion_tokens"] <= most


def test_clamp_never_goes_below_the_floor(house: RunningGateway, fake: Any) -> None:
    lowest = 10**9
    for number in range(40):
        answer = ask(house, "messages", "clamp-floor", f"floor-{number} [[tokens 900]]", 1000)
        if answer.status != 200:
            break
        (sent,) = asked_of(fake, f"floor-{number} ")
        lowest = min(lowest, json.loads(sent.body)["max_tokens"])
    assert answer.status == 402
    assert answer.error["type"] == "billing_error"
    assert lowest >= 16


# -- queue -----------------------------------------------------------------------------------------------------------


def test_a_queued_call_goes_when_another_settles(house: RunningGateway, fake: Any) -> None:
    first = Waiting(house, "chat", "queue", "[[wait 1.5]] [[tokens 5]] queue-1", 200)
    under_way(fake, "queue-1")
    second = ask(house, "chat", "queue", "[[tokens 5]] queue-2", 200)
    assert (first.answer().status, second.status) == (200, 200)
    (call,) = house.until(lambda: noted(house, second), bool)
    assert call["notes"]["budget"] == "queued"


def test_a_queued_call_does_not_wait_for_ever(house: RunningGateway, fake: Any) -> None:
    first = Waiting(house, "chat", "queue-bound", "[[wait 60]] bound-1", 200)
    under_way(fake, "bound-1")
    began = time.monotonic()
    second = ask(house, "chat", "queue-bound", "bound-2", 200)
    assert second.status == 402
    assert time.monotonic() - began > 2.5
    first.leave()
    house.until(lambda: house.get("/api/calls")["calls"], lambda calls: any(c["outcome"] == "cancelled" for c in calls))
    began = time.monotonic()  # who left is in doubt, and what was held is charged: now there is nothing to wait for
    assert ask(house, "chat", "queue-bound", "bound-3", 200).status == 402
    assert time.monotonic() - began < 2.5  # it waits for three seconds where there is something


def test_who_leaves_the_queue_holds_nothing(house: RunningGateway, fake: Any) -> None:
    first = Waiting(house, "chat", "queue-gone", "[[wait 2]] [[tokens 5]] gone-1", 200)
    under_way(fake, "gone-1")
    second = Waiting(house, "chat", "queue-gone", "gone-2", 200, prefix="/run/queue-gone")
    time.sleep(0.2)
    second.leave()
    (call,) = house.calls(1, run="queue-gone")
    assert call["outcome"] == "cancelled"
    assert first.answer().status == 200
    third = ask(house, "chat", "queue-gone", "[[tokens 5]]", 200)
    assert third.status == 200
    assert not asked_of(fake, "gone-2")


def test_a_kill_ends_the_wait(house: RunningGateway, fake: Any) -> None:
    first = Waiting(house, "chat", "queue-kill", "[[wait 60]] kill-1", 200)
    under_way(fake, "kill-1")
    second = Waiting(house, "chat", "queue-kill", "kill-2", 200, prefix="/run/queued-kill")
    time.sleep(0.2)
    house.post("/api/runs/queued-kill/kill", {"reason": "enough"})
    answer = second.answer()
    assert answer.status == 402
    assert "enough" in answer.message
    assert not asked_of(fake, "kill-2")
    first.leave()


def test_nobody_is_kept_waiting_beyond_its_own_patience(house: RunningGateway, fake: Any) -> None:
    """A client that says how long it waits (as the SDKs do) gets its refusal before it gives up."""
    first = Waiting(house, "chat", "queue-patience", "[[wait 60]] patience-1", 200)
    under_way(fake, "patience-1")

    def take(_: int) -> float:
        began = time.monotonic()
        answer = ask(house, "chat", "queue-patience", "x", 200, headers={"x-stainless-timeout": "1"})
        assert answer.status == 402
        return time.monotonic() - began

    soon(take, 1)
    first.leave()


# -- reload ----------------------------------------------------------------------------------------------------------


def test_a_changed_limit_counts_at_once_and_nothing_spent_is_lost(house: RunningGateway) -> None:
    refusal = spend(house, "reload", text="[[tokens 100]]", most=110)
    spent = float(re.search(r"\$(0\.\d+) spent", refusal.message)[1])  # type: ignore[index]
    base = {key: house.config[key] for key in ("listen", "admin", "state")}
    try:
        for limit, status in ((0.02, 200), (0.015, 402)):
            changed = [budget("reload", limit) if b["match"] == "reload" else b for b in BUDGETS]
            house.write_config({**base, **settings(budgets=changed)})
            words = "is $0.015:" if status == 402 else ""
            answer = until(lambda status=status, words=words: reads(house, status, words))
        assert float(re.search(r"\$(0\.\d+) spent", answer.message)[1]) > spent  # type: ignore[index]
    finally:
        house.write_config({**base, **settings()})


def reads(gate: RunningGateway, status: int, words: str) -> Any:
    answer = ask(gate, "chat", "reload", "[[tokens 100]]", 180)
    return answer if answer.status == status and words in answer.raw.decode() else None


def test_the_forms_above_are_what_clients_send() -> None:
    assert body_of("gemini", "m", "x", 5)["generationConfig"] == {"maxOutputTokens": 5}
